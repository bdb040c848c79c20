"""Owns the words of an expression."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from services.gateway.domain.expression.fault import ExpressionError

GREATEST = 2**63 - 1
"""CEL's int has 64 bits."""

# CEL's own words, and those it keeps for later (CEL language definition, "Syntax").
RESERVED = frozenset(
    """as break const continue else false for function if import in let loop null package namespace return true var void
    while""".split()  # noqa: SIM905 — read as one sentence
)
_WORD = re.compile(
    r"""(?P<space>[\t\n\f\r ]+|//[^\n]*)
      | (?P<float>[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|\.[0-9]+(?:[eE][+-]?[0-9]+)?)
      | (?P<int>0[xX][0-9a-fA-F]+|[0-9]+)(?P<unsigned>[uU]?)
      | (?P<text>(?P<prefix>[rRbB]{0,2})(?:\"\"\"|'''|\"|'))
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<sign>&&|\|\||==|!=|<=|>=|[-+*/%!<>?:.,()\[\]{}])""",
    re.VERBOSE,
)
_SIMPLE = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", "?": "?", '"': '"', "'": "'", "`": "`",
}  # fmt: skip
_CODED = re.compile(r"[xX]([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})")


@dataclass(frozen=True, slots=True)
class Word:
    """A literal, a name, a sign, or the end."""

    form: str
    """`int`, `text`, `name`, `sign`, `end`."""
    position: int
    text: str
    """Of a text what it means, of everything else what was written."""


def words(source: str) -> Iterator[Word]:
    """Yields the words of an expression and its end; raises ExpressionError for what is none."""
    at = 0
    while at < len(source):
        found = _WORD.match(source, at)
        if found is None:
            raise ExpressionError(at, f"{source[at]!r} means nothing here")
        form = found.lastgroup or ""
        if found["float"]:
            raise ExpressionError(at, "numbers with a fraction are not part of the language")
        if found["int"]:
            if found["unsigned"]:
                raise ExpressionError(at, "unsigned numbers are not part of the language")
            yield Word("int", at, found["int"])
        elif found["text"]:
            meant, end = _text(source, at, found)
            yield Word("text", at, meant)
            at = end
            continue
        elif form in ("name", "sign"):
            yield Word(form, at, found[0])
        at = found.end()
    yield Word("end", len(source), "")


def _text(source: str, at: int, found: "re.Match[str]") -> tuple[str, int]:
    prefix = found["prefix"].lower()
    if "b" in prefix:
        raise ExpressionError(at, "bytes are not part of the language")
    if prefix not in ("", "r"):
        raise ExpressionError(at, f"{prefix!r} is no prefix of a text")
    quotes = found["text"][len(prefix) :]
    pieces: list[str] = []
    here = found.end()
    while not source.startswith(quotes, here):
        if here >= len(source) or (len(quotes) == 1 and source[here] in "\r\n"):
            raise ExpressionError(at, "the text does not end")
        if source[here] != "\\":
            pieces.append(source[here])
            here += 1
        elif prefix:
            # A raw text keeps its backslashes, and one before a quote does not let the quote end it.
            pieces.append(source[here : here + 2])
            here += 2
        else:
            piece, here = _escaped(source, here)
            pieces.append(piece)
    return "".join(pieces), here + len(quotes)


def _escaped(source: str, at: int) -> tuple[str, int]:
    following = source[at + 1 : at + 2]
    if following in _SIMPLE:
        return _SIMPLE[following], at + 2
    coded = _CODED.match(source, at + 1)
    if coded is None:
        raise ExpressionError(at, "there is no such escape")
    number = int(coded[4], 8) if coded[4] else int(coded[1] or coded[2] or coded[3], 16)
    if number > 0x10FFFF or 0xD800 <= number < 0xE000:
        raise ExpressionError(at, "there is no such character")
    return chr(number), coded.end()
