"""Owns finding the few rules that can match a request, without looking at all of them."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from services.gateway.domain.expression.node import Node
from services.gateway.domain.expression.patterns import Engine, Found
from services.gateway.domain.expression.schema import Field, Kind
from services.gateway.domain.expression.source import Source

MOST_KEPT = 4_096
"""Values of one field whose tests are remembered."""
LONGEST_KEPT = 300
MOST_TEXT = 2**31
"""Longer than any text is."""

_FEW = 2

_RANKS = {"equal": 0, "test": 1, "starts_with": 2, "ends_with": 3, "contains": 5, "matches": 8}
_TAG_RANK = 0


@dataclass(frozen=True, slots=True)
class Hint:
    """One thing of which some must be so for an expression to be anything but false."""

    field: Field
    form: str
    """`equal`, `starts_with`, `ends_with`, `contains`, `matches`, `test` (an in_cidr or in_list), `tag`."""
    value: object
    node: Node

    @property
    def rank(self) -> int:
        """The lower, the fewer requests are like that and the sooner it is known."""
        return _TAG_RANK if self.form == "tag" else self.field.rank * 10 + _RANKS[self.form]


def hints(node: Node) -> tuple[Hint, ...] | None:
    """Returns things of which at least one is so unless the expression is false; None where there are none to name.

    Where none is so, the expression is false and does not fail either: a false side makes up for a failing one.
    """
    match node.form:
        case "constant" if node.value is False:
            return ()
        case "field" if node.field is not None and node.kind is Kind.BOOL:
            return (Hint(node.field, "equal", True, node),)
        case "and":
            known = [found for part in node.parts if (found := hints(part)) is not None]
            return min(known, key=_worst) if known else None
        case "or":
            sides = [hints(part) for part in node.parts]
            if any(side is None for side in sides):
                return None
            return tuple(hint for side in sides if side is not None for hint in side)
    return _test(node)


def _worst(found: tuple[Hint, ...]) -> tuple[int, int]:
    return max((hint.rank for hint in found), default=-1), len(found)


def _test(node: Node) -> tuple[Hint, ...] | None:
    if len(node.parts) == 2 and node.form == "==" and node.parts[0].form == "constant":
        node = Node(node.form, node.kind, node.parts[::-1], fails=node.fails)
    if not node.parts:
        return None
    subject, given = node.parts[0], node.parts[1] if len(node.parts) == 2 else None
    if node.form == "in" and given is not None and given.field is not None and given.field.changes:
        return (Hint(given.field, "tag", subject.value, node),) if subject.form == "constant" else None
    about = subject.field
    if subject.form != "field" or about is None or about.changes or subject.kind is Kind.ENTRIES:
        return None
    if node.form in ("in_cidr", "in_list"):
        return (Hint(about, "test", node.value, node),)
    if node.form == "matches":
        return (Hint(about, "matches", node.value, node),)
    if given is None or given.form != "constant":
        return None
    if node.form == "==" and isinstance(given.value, str | int):
        return (Hint(about, "equal", given.value, node),)
    if node.form == "in" and isinstance(given.value, tuple):
        return tuple(Hint(about, "equal", value, node) for value in given.value)
    if node.form in ("starts_with", "ends_with", "contains"):
        return (Hint(about, node.form, given.value, node),)
    return None


_Group = tuple[Found, list[tuple[Found, int]]]
"""What finds any pattern of a group, and each of them with its marks."""


def _always(_: str) -> bool:
    return True


@dataclass
class FieldIndex:
    """All hints on one field: from a value of it to the marks of the rules that can match."""

    engine: Engine
    always: int
    """A mark that every answer has, so that none is zero."""
    kept: dict[object, int] = field(default_factory=dict)
    _equal: dict[object, int] = field(default_factory=lambda: defaultdict(int))
    _starts: dict[int, dict[str, int]] = field(default_factory=dict)
    _ends: dict[int, dict[str, int]] = field(default_factory=dict)
    _parts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _patterns: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _tests: list[tuple[Callable[[object], bool], int]] = field(default_factory=list)
    _groups: list[_Group] = field(default_factory=list)

    def add(self, hint: Hint, mark: int, test: Callable[[object], bool] | None = None) -> None:
        """Adds a hint; one of form `test` comes with what tests it."""
        text = str(hint.value)
        match hint.form:
            case "equal":
                self._equal[hint.value] |= mark
            case "starts_with":
                held = self._starts.setdefault(len(text), defaultdict(int))
                held[text] |= mark
            case "ends_with":
                held = self._ends.setdefault(len(text), defaultdict(int))
                held[text] |= mark
            case "contains":
                self._parts[text] |= mark
            case "matches":
                self._patterns[text] |= mark
            case "test" if test is not None:
                self.add_test(test, mark)

    def add_test(self, test: Callable[[object], bool], mark: int) -> None:
        """Adds a test of a value."""
        self._tests.append((test, mark))

    def ready(self) -> None:
        """Compiles what there is; to be called once, when all was added."""
        self._groups = self._grouped(list(self._patterns.items()))

    def lines(self, source: Source, known: Field) -> list[str]:
        """Returns Python that adds the marks for a field `f` has to `m`."""
        read = f"f.{known.attribute}"
        slow = self._patterns or self._tests or len(self._parts) > _FEW
        if known.recurs and (slow or self._starts or self._ends):
            kept, look = source.named(self.kept), source.named(self.remember)
            return [f" v = {read}", f" m |= {kept}.get(v) or {look}(v)"]
        lines = [f" v = {read}"]
        if self._equal:
            lines.append(f" m |= {source.named(dict(self._equal))}.get(v, 0)")
        for length, held in self._starts.items():
            lines.append(f" m |= {source.named(dict(held))}.get(v[:{length}], 0)")
        for length, held in self._ends.items():
            lines.append(f" m |= {source.named(dict(held))}.get(v[{-length or MOST_TEXT}:], 0)")
        for part, mark in self._parts.items():
            lines.append(f" if {source.named(part)} in v: m |= {mark}")
        if self._patterns:
            lines.append(f" m |= {source.named(self._pattern_marks)}(v)")
        for test, mark in self._tests:
            lines.append(f" if {source.named(test)}(v): m |= {mark}")
        return lines

    def marks(self, value: object) -> int:
        """Returns the marks for a value, `always` among them."""
        found = self._equal.get(value, 0) | self.always
        for test, mark in self._tests:
            if test(value):
                found |= mark
        if isinstance(value, str):
            found |= self._text_marks(value)
        return found

    def remember(self, value: object) -> int:
        """Returns the marks for a value, and remembers them in `kept`."""
        found = self.marks(value)
        if not isinstance(value, str) or len(value) <= LONGEST_KEPT:
            if len(self.kept) >= MOST_KEPT:
                self.kept.clear()
            self.kept[value] = found
        return found

    def _text_marks(self, text: str) -> int:
        found = 0
        for length, held in self._starts.items():
            found |= held.get(text[:length], 0)
        for length, held in self._ends.items():
            found |= held.get(text[-length:] if length else "", 0)
        for part, mark in self._parts.items():
            if part in text:
                found |= mark
        return found | self._pattern_marks(text)

    def _pattern_marks(self, text: str) -> int:
        found = 0
        for any_finds, members in self._groups:
            if any_finds(text):
                for finds, mark in members:
                    if finds(text):
                        found |= mark
        return found

    def _grouped(self, patterns: list[tuple[str, int]]) -> list[_Group]:
        """Returns patterns in groups that are looked for at once; most texts have none of a group."""
        if len(patterns) < 2:
            members = [(self.engine.one(pattern), mark) for pattern, mark in patterns]
            return [(finds, [(_always, mark)]) for finds, mark in members]
        together = self.engine.any_of([pattern for pattern, _ in patterns])
        if together is None:
            half = len(patterns) // 2
            return self._grouped(patterns[:half]) + self._grouped(patterns[half:])
        return [(together, [(self.engine.one(pattern), mark) for pattern, mark in patterns])]


def indexed(
    chosen: Iterable[tuple[int, tuple[Hint, ...]]],
    engine: Engine,
    always: int,
    tester: Callable[[Node], Callable[[object], bool]],
) -> tuple[dict[Field, FieldIndex], dict[str, int]]:
    """Returns an index for each field, and marks by tag, of rules' marks and hints."""
    indexes: dict[Field, FieldIndex] = {}
    tags: dict[str, int] = defaultdict(int)
    for mark, found in chosen:
        for hint in found:
            if hint.form == "tag":
                tags[str(hint.value)] |= mark
                continue
            index = indexes.setdefault(hint.field, FieldIndex(engine, always))
            index.add(hint, mark, tester(hint.node) if hint.form == "test" else None)
    return indexes, dict(tags)
