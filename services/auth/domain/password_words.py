"""Owns which words say too much of a password: those that whoever attacks it knows already (ASVS 5.0, 6.2.11)."""

import re
import unicodedata
from collections.abc import Iterable
from urllib.parse import urlsplit

BRAND = "gatefold"
LEAST_WORD = 4
LEAST_REST = 8
"""Letters and digits that must be left of a password when the known words are taken out of it."""

_SPLIT = re.compile(r"[\W_]+")


def known_words(*, email: str = "", name: str = "", publication: str = "", site: str = "") -> tuple[str, ...]:
    """Returns the words of a person and a publication, the longest first."""
    host = urlsplit(site).hostname or "" if site else ""
    local, _, domain = email.partition("@")
    words = {BRAND}
    for text in (local, domain.rpartition(".")[0], name, publication, host.rpartition(".")[0]):
        plain = _plain(text)
        words.update(word for word in (*_SPLIT.split(plain), _SPLIT.sub("", plain)) if len(word) >= LEAST_WORD)
    return tuple(sorted(words, key=lambda word: (-len(word), word)))


def says_too_much(password: str, words: Iterable[str]) -> bool:
    """Tells whether hardly anything is left of a password when the known words are taken out."""
    plain = _SPLIT.sub("", _plain(password))
    rest = plain
    for word in words:
        rest = rest.replace(word, "")
    return rest != plain and len(rest) < LEAST_REST


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
