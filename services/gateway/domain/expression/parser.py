"""Owns the grammar: CEL's, without comprehensions, messages, maps and types that no rule needs."""

from services.gateway.domain.expression.fault import ExpressionError
from services.gateway.domain.expression.lexer import GREATEST, RESERVED, Word, words
from services.gateway.domain.expression.node import Syntax

LONGEST = 4_096
"""Characters of an expression."""
DEEPEST = 32
"""Levels of an expression; a chain of `&&` or `||` is one."""

_COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">=", "in"})
_CONSTANTS = {"true": True, "false": False}


def parse(source: str) -> Syntax:
    """Returns an expression as a tree; raises ExpressionError."""
    if len(source) > LONGEST:
        raise ExpressionError(LONGEST, f"an expression has {LONGEST:,} characters at most")
    return _Parser(list(words(source))).whole()


class _Parser:
    def __init__(self, found: list[Word]) -> None:
        self._words = found
        self._at = 0
        self._open = 0

    def whole(self) -> Syntax:
        if self._next.form == "end":
            raise ExpressionError(0, "the expression is empty")
        tree = self._expression()
        if self._next.form != "end":
            raise self._unexpected()
        return tree

    @property
    def _next(self) -> Word:
        return self._words[self._at]

    def _unexpected(self) -> ExpressionError:
        word = self._next
        what = "the end" if word.form == "end" else repr(word.text)
        return ExpressionError(word.position, f"{what} was not expected here")

    def _takes(self, *signs: str) -> Word | None:
        word = self._next
        if word.form in ("sign", "name") and word.text in signs:
            self._at += 1
            return word
        return None

    def _expect(self, sign: str) -> None:
        if self._takes(sign) is None:
            raise self._unexpected()

    def _made(self, form: str, position: int, *parts: Syntax, text: str = "") -> Syntax:
        depth = 1 + max((part.depth for part in parts), default=0)
        if depth > DEEPEST:
            raise ExpressionError(position, f"an expression has {DEEPEST} levels at most")
        return Syntax(form, position, parts, text, depth=depth)

    def _expression(self) -> Syntax:
        self._open += 1
        if self._open > DEEPEST:
            raise ExpressionError(self._next.position, f"an expression has {DEEPEST} levels at most")
        tree = self._chain("||")
        if self._takes("?"):
            chosen = self._chain("||")
            self._expect(":")
            tree = self._made("choice", tree.position, tree, chosen, self._expression())
        self._open -= 1
        return tree

    def _chain(self, sign: str) -> Syntax:
        parts = [self._part(sign)]
        while self._takes(sign):
            parts.append(self._part(sign))
        if len(parts) == 1:
            return parts[0]
        return self._made("any" if sign == "||" else "all", parts[0].position, *parts)

    def _part(self, sign: str) -> Syntax:
        return self._chain("&&") if sign == "||" else self._relation()

    def _relation(self) -> Syntax:
        tree = self._sum()
        while word := self._takes(*_COMPARISONS):
            tree = self._made("binary", word.position, tree, self._sum(), text=word.text)
        return tree

    def _sum(self) -> Syntax:
        tree = self._product()
        while word := self._takes("+", "-"):
            tree = self._made("binary", word.position, tree, self._product(), text=word.text)
        return tree

    def _product(self) -> Syntax:
        tree = self._unary()
        while word := self._takes("*", "/", "%"):
            tree = self._made("binary", word.position, tree, self._unary(), text=word.text)
        return tree

    def _unary(self) -> Syntax:
        signs: list[Word] = []
        while word := self._takes("!") if not signs else self._takes(signs[0].text):
            signs.append(word)
            if len(signs) > DEEPEST:
                raise ExpressionError(word.position, f"an expression has {DEEPEST} levels at most")
        if not signs:
            while word := self._takes("-"):
                signs.append(word)
                if len(signs) > DEEPEST:
                    raise ExpressionError(word.position, f"an expression has {DEEPEST} levels at most")
        negative = bool(signs) and signs[-1].text == "-" and self._next.form == "int"
        tree = self._member(negative=negative)
        for word in reversed(signs[:-1] if negative else signs):
            tree = self._made("unary", word.position, tree, text=word.text)
        return tree

    def _member(self, *, negative: bool) -> Syntax:
        tree = self._primary(negative=negative)
        while word := self._takes(".", "["):
            if word.text == "[":
                index = self._expression()
                self._expect("]")
                tree = self._made("index", word.position, tree, index)
                continue
            name = self._name()
            if self._takes("("):
                tree = self._made("method", name.position, tree, *self._until(")"), text=name.text)
            else:
                tree = self._made("select", name.position, tree, text=name.text)
        return tree

    def _name(self) -> Word:
        word = self._next
        if word.form != "name" or word.text in RESERVED:
            raise self._unexpected()
        self._at += 1
        return word

    def _primary(self, *, negative: bool) -> Syntax:
        word = self._next
        if word.form == "int":
            self._at += 1
            number = int(word.text, 16) if word.text[:2] in ("0x", "0X") else _decimal(word)
            number = -number if negative else number
            if not -GREATEST - 1 <= number <= GREATEST:
                raise ExpressionError(word.position, "the number has more than 64 bits")
            return Syntax("literal", word.position, value=number)
        if word.form == "text":
            self._at += 1
            return Syntax("literal", word.position, value=word.text)
        if word.form == "name" and word.text in _CONSTANTS:
            self._at += 1
            return Syntax("literal", word.position, value=_CONSTANTS[word.text])
        if self._takes("("):
            tree = self._expression()
            self._expect(")")
            return tree
        if self._takes("["):
            return self._made("list", word.position, *self._until("]"))
        if word.text == "{":
            raise ExpressionError(word.position, "maps cannot be written in a rule")
        if word.text == "null":
            raise ExpressionError(word.position, "there is no null: a text that is not known is empty")
        name = self._name()
        if self._takes("("):
            return self._made("call", name.position, *self._until(")"), text=name.text)
        return Syntax("name", name.position, text=name.text)

    def _until(self, end: str) -> list[Syntax]:
        parts: list[Syntax] = []
        while not self._takes(end):
            if parts:
                self._expect(",")
                # CEL allows a comma after the last element of a list.
                if end == "]" and self._takes(end):
                    break
            parts.append(self._expression())
        return parts


def _decimal(word: Word) -> int:
    # Python refuses to read numbers of thousands of digits.
    return int(word.text) if len(word.text) < 40 else GREATEST + 2
