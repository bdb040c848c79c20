"""Owns the Python that expressions become.

No text of a rule is ever part of it: constants are handed over by name, fields come from the schema's own table.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from services.gateway.domain.expression.lexer import GREATEST
from services.gateway.domain.expression.node import Node

FAILED = object()
"""What an expression is whose evaluation failed: neither true nor false, and not the end of those around it."""

_SIGNS = {"==": "==", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_WORDS = {"+": "plus", "-": "minus", "*": "times", "/": "divided", "%": "remainder"}
_FEW = 3


@dataclass
class Source:
    """Writes expressions, and keeps what they refer to."""

    tester: Callable[[Node], Callable[[object], bool]]
    """Gives what a `matches`, `in_cidr` or `in_list` is tested by."""
    names: dict[str, object] = field(
        default_factory=lambda: {
            "E": FAILED,
            "plus": _plus,
            "minus": _minus,
            "times": _times,
            "divided": _divided,
            "remainder": _remainder,
            "negated": _negated,
        }
    )
    locals: dict[str, str] = field(default_factory=dict)
    """Fields that stand in a variable of the function, by attribute."""
    _variables: int = 0

    def named(self, value: object) -> str:
        """Returns a name for a value."""
        name = f"k{len(self.names)}"
        self.names[name] = value
        return name

    def of(self, node: Node) -> str:
        """Returns an expression; its value is FAILED where evaluating it fails."""
        match node.form:
            case "constant":
                return self._constant(node.value)
            case "field" if node.field is not None:
                return self.locals.get(node.field.attribute) or f"f.{node.field.attribute}"
            case "and" | "or":
                return self._chain(node)
            case "choice":
                condition, chosen, other = map(self.of, node.parts)
                if not node.parts[0].fails:
                    return f"({chosen} if {condition} else {other})"
                name = self._variable()
                return f"(E if ({name} := {condition}) is E else {chosen} if {name} else {other})"
            case "entry":
                return self._strict(node.parts, lambda entries, key: f"{entries}.get({key}, E)")
            case "matches" | "in_cidr" | "in_list":
                test = self.named(self.tester(node))
                return self._strict(node.parts, lambda value: f"{test}({value})")
        return self._strict(node.parts, self._form(node))

    def _form(self, node: Node) -> Callable[..., str]:
        if node.form in _SIGNS:
            return lambda left, right: f"({left} {_SIGNS[node.form]} {right})"
        if node.form in _WORDS:
            return lambda left, right: f"{_WORDS[node.form]}({left}, {right})"
        forms: dict[str, Callable[..., str]] = {
            "not": lambda part: f"(not {part})",
            "negate": lambda part: f"negated({part})",
            "join": lambda left, right: f"({left} + {right})",
            "list": lambda *parts: f"({', '.join(parts)},)",
            "size": lambda part: f"len({part})",
            "in": lambda left, right: f"({left} in {right})",
            "has_entry": lambda entries, key: f"({key} in {entries})",
            "starts_with": lambda text, part: f"{text}.startswith({part})",
            "ends_with": lambda text, part: f"{text}.endswith({part})",
            "contains": lambda text, part: f"({part} in {text})",
        }
        return forms[node.form]

    def _strict(self, parts: tuple[Node, ...], form: Callable[..., str]) -> str:
        """Fails where a part does."""
        tests: list[str] = []
        values: list[str] = []
        for part in parts:
            written = self.of(part)
            if part.fails:
                name = self._variable()
                tests.append(f"({name} := {written}) is E")
                written = name
            values.append(written)
        return f"(E if {' or '.join(tests)} else {form(*values)})" if tests else form(*values)

    def _chain(self, node: Node) -> str:
        """CEL's && and || do not care for order: one side that decides makes up for another that fails.

        So the cheapest come first, and those that cannot fail before those that can.
        """
        word, decides, otherwise = ("and", "False", "True") if node.form == "and" else ("or", "True", "False")
        parts = sorted(node.parts, key=lambda part: (part.fails, part.cost))
        sure = [self.of(part) for part in parts if not part.fails]
        risky = [(self._variable(), self.of(part)) for part in parts if part.fails]
        if risky:
            tests = " or ".join(f"({name} := {written}) is {decides}" for name, written in risky)
            failed = " or ".join(f"{name} is E" for name, _ in risky)
            sure.append(f"({decides} if {tests} else E if {failed} else {otherwise})")
        return f"({f' {word} '.join(sure)})"

    def _constant(self, value: object) -> str:
        if isinstance(value, bool | int):
            return f"({value!r})"
        return self.named(frozenset(value) if isinstance(value, tuple) and len(value) > _FEW else value)

    def _variable(self) -> str:
        self._variables += 1
        return f"t{self._variables}"


def fields_of(node: Node) -> Iterable[str]:
    """Yields the attributes of the fields that an expression reads, as often as it does."""
    if node.field is not None:
        yield node.field.attribute
    for part in node.parts:
        yield from fields_of(part)


def _checked(number: int) -> object:
    return number if -GREATEST - 1 <= number <= GREATEST else FAILED


def _plus(left: int, right: int) -> object:
    return _checked(left + right)


def _minus(left: int, right: int) -> object:
    return _checked(left - right)


def _times(left: int, right: int) -> object:
    return _checked(left * right)


def _divided(left: int, right: int) -> object:
    # Towards zero, as CEL does; Python rounds down.
    if right == 0:
        return FAILED
    whole = abs(left) // abs(right)
    return _checked(whole if (left < 0) == (right < 0) else -whole)


def _remainder(left: int, right: int) -> object:
    if right == 0 or (left == -GREATEST - 1 and right == -1):
        return FAILED
    rest = abs(left) % abs(right)
    return -rest if left < 0 else rest


def _negated(number: int) -> object:
    return _checked(-number)
