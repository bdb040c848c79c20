"""Owns the types of expressions: what is well-formed and makes sense becomes a tree with types, all else is refused."""

import re
from collections.abc import Callable

from services.gateway.domain.expression.fault import ExpressionError
from services.gateway.domain.expression.node import Node, Syntax
from services.gateway.domain.expression.patterns import Engine
from services.gateway.domain.expression.schema import LISTS, Kind, Schema
from services.gateway.domain.networks import normal, parse_address, parse_network

MOST_COST = 1_000
"""Of one expression; a comparison costs 1, a regular expression 30."""
LONGEST_PATTERN = 512

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_ORDERED = frozenset({Kind.INT, Kind.STRING, Kind.BOOL})
_ARITHMETIC = frozenset({"+", "-", "*", "/", "%"})
_EQUALITIES = frozenset({"==", "!="})
_TEXT_TESTS = {"startsWith": "starts_with", "endsWith": "ends_with", "contains": "contains"}
_COSTS = {"starts_with": 1, "ends_with": 1, "contains": 3, "matches": 30, "in_cidr": 8, "in_list": 8}
_LISTED = {
    "networks": Kind.ADDRESS,
    "countries": Kind.STRING,
    "asns": Kind.INT,
    "user_agents": Kind.STRING,
    "email_domains": Kind.STRING,
}


def check(tree: Syntax, schema: Schema, engine: Engine) -> Node:
    """Returns a rule's expression with its types; raises ExpressionError, also where it is no condition."""
    node = _Checker(schema, engine).of(tree)
    if node.kind is not Kind.BOOL:
        raise ExpressionError(tree.position, f"a rule is a condition, this is a {node.kind.value}")
    if node.cost > MOST_COST:
        raise ExpressionError(0, f"the rule costs {node.cost}; {MOST_COST} is the most")
    return node


class _Checker:
    def __init__(self, schema: Schema, engine: Engine) -> None:
        self._schema = schema
        self._engine = engine

    def of(self, tree: Syntax) -> Node:
        forms: dict[str, Callable[[Syntax], Node]] = {
            "literal": self._literal,
            "list": self._list,
            "name": self._field,
            "select": self._select,
            "index": self._index,
            "call": self._call,
            "method": self._method,
            "unary": self._unary,
            "binary": self._binary,
            "all": self._chain,
            "any": self._chain,
            "choice": self._choice,
        }
        return forms[tree.form](tree)

    def _literal(self, tree: Syntax) -> Node:
        return _constant(tree.value)

    def _list(self, tree: Syntax) -> Node:
        parts = tuple(map(self.of, tree.parts))
        if not parts:
            return Node("constant", Kind.EMPTY_LIST, value=(), cost=0)
        kind = LISTS.get(parts[0].kind)
        if kind is None:
            raise ExpressionError(tree.parts[0].position, f"there are no lists of a {parts[0].kind.value}")
        for part, written in zip(parts, tree.parts, strict=True):
            if part.kind is not parts[0].kind:
                raise ExpressionError(
                    written.position, f"a list is of one type: {parts[0].kind.value}, not {part.kind.value}"
                )
        if all(part.form == "constant" for part in parts):
            return Node("constant", kind, value=tuple(part.value for part in parts), cost=0)
        return _node("list", kind, parts, cost=1)

    def _field(self, tree: Syntax) -> Node:
        known = self._schema.fields.get(tree.text)
        if known is None:
            raise ExpressionError(tree.position, f"there is no field {tree.text}")
        return Node("field", known.kind, field=known, cost=5 if known.costly else 1)

    def _select(self, tree: Syntax) -> Node:
        path = _path(tree)
        if path in self._schema.fields:
            return self._field(Syntax("name", tree.position, text=path))
        holder = _path(tree.parts[0])
        if holder in self._schema.fields:
            entries = self.of(tree.parts[0])
            if entries.kind is Kind.ENTRIES:
                return self._entry("entry", entries, _constant(tree.text), tree.position)
            raise ExpressionError(tree.position, f"{holder} is a {entries.kind.value}, it has no {tree.text}")
        raise ExpressionError(_start(tree), f"there is no field {path or tree.text}")

    def _entry(self, form: str, entries: Node, key: Node, position: int) -> Node:
        if key.kind is not Kind.STRING:
            raise ExpressionError(position, f"a map's key is a string, not a {key.kind.value}")
        if key.form == "constant" and not _HEADER.fullmatch(str(key.value)):
            raise ExpressionError(position, f"{key.value!r} names no header: names are in lower case")
        return _node(form, Kind.STRING if form == "entry" else Kind.BOOL, (entries, key), fails=form == "entry", cost=2)

    def _index(self, tree: Syntax) -> Node:
        entries, key = map(self.of, tree.parts)
        if entries.kind is not Kind.ENTRIES:
            raise ExpressionError(tree.position, f"a {entries.kind.value} has no entries by name")
        return self._entry("entry", entries, key, tree.parts[1].position)

    def _call(self, tree: Syntax) -> Node:
        if tree.text == "has":
            return self._has(tree)
        if tree.text == "in_cidr":
            return self._in_cidr(tree)
        if tree.text == "in_list":
            return self._in_list(tree)
        if tree.text in ("size", "matches"):
            return self._applied(tree)
        raise ExpressionError(tree.position, f"there is no function {tree.text}")

    def _method(self, tree: Syntax) -> Node:
        if tree.text in _TEXT_TESTS or tree.text in ("size", "matches"):
            return self._applied(tree)
        raise ExpressionError(tree.position, f"there is no function {tree.text}")

    def _applied(self, tree: Syntax) -> Node:
        expected = 1 if tree.text == "size" else 2
        if len(tree.parts) != expected:
            raise ExpressionError(tree.position, f"{tree.text} takes {expected} values, the one before it included")
        parts = tuple(map(self.of, tree.parts))
        if tree.text == "size":
            if parts[0].kind in (Kind.BOOL, Kind.INT, Kind.ADDRESS):
                raise ExpressionError(tree.position, f"a {parts[0].kind.value} has no size")
            return _node("size", Kind.INT, parts, cost=1)
        for part, written in zip(parts, tree.parts, strict=True):
            if part.kind is not Kind.STRING:
                raise ExpressionError(written.position, f"{tree.text} is about strings, not a {part.kind.value}")
        if tree.text == "matches":
            return self._matches(tree, parts)
        form = _TEXT_TESTS[tree.text]
        return _node(form, Kind.BOOL, parts, cost=_COSTS[form])

    def _matches(self, tree: Syntax, parts: tuple[Node, ...]) -> Node:
        pattern, position = parts[1].value, tree.parts[1].position
        if parts[1].form != "constant" or not isinstance(pattern, str):
            raise ExpressionError(position, "a pattern is written in the rule")
        if len(pattern) > LONGEST_PATTERN:
            raise ExpressionError(position, f"a pattern has {LONGEST_PATTERN} characters at most")
        try:
            self._engine.one(pattern)
        except ValueError as error:
            raise ExpressionError(position, f"the pattern is refused: {error}") from None
        return _node("matches", Kind.BOOL, parts[:1], value=pattern, cost=_COSTS["matches"])

    def _has(self, tree: Syntax) -> Node:
        if len(tree.parts) != 1 or tree.parts[0].form != "select":
            raise ExpressionError(tree.position, "has takes one entry: has(request.headers.accept)")
        node = self.of(tree.parts[0])
        if node.form != "entry":
            raise ExpressionError(tree.position, "has takes one entry: fields are always there")
        return _node("has_entry", Kind.BOOL, node.parts, cost=2)

    def _in_cidr(self, tree: Syntax) -> Node:
        if len(tree.parts) != 2:
            raise ExpressionError(tree.position, 'in_cidr takes an address and a network: "10.0.0.0/8"')
        address, network = map(self.of, tree.parts)
        if address.kind is not Kind.ADDRESS:
            raise ExpressionError(tree.parts[0].position, f"in_cidr is about an address, not a {address.kind.value}")
        if network.form != "constant" or not isinstance(network.value, str):
            raise ExpressionError(tree.parts[1].position, "a network is written in the rule")
        try:
            parse_network(network.value)
        except ValueError as error:
            raise ExpressionError(tree.parts[1].position, str(error)) from None
        return _node("in_cidr", Kind.BOOL, (address,), value=network.value, cost=_COSTS["in_cidr"])

    def _in_list(self, tree: Syntax) -> Node:
        if len(tree.parts) != 2:
            raise ExpressionError(tree.position, "in_list takes a value and the name of a list")
        value, name = map(self.of, tree.parts)
        if name.form != "constant" or not isinstance(name.value, str):
            raise ExpressionError(tree.parts[1].position, "the name of a list is written in the rule")
        listed = self._schema.lists.get(name.value)
        if listed is None:
            raise ExpressionError(tree.parts[1].position, f"there is no list {name.value!r}")
        if value.kind is not _LISTED[listed]:
            raise ExpressionError(
                tree.parts[0].position,
                f"the list {name.value!r} is of {listed}, which a {value.kind.value} cannot be on",
            )
        return _node("in_list", Kind.BOOL, (value,), value=name.value, cost=_COSTS["in_list"])

    def _unary(self, tree: Syntax) -> Node:
        part = self.of(tree.parts[0])
        wanted, form = (Kind.BOOL, "not") if tree.text == "!" else (Kind.INT, "negate")
        if part.kind is not wanted:
            raise ExpressionError(tree.position, f"{tree.text} is about a {wanted.value}, not a {part.kind.value}")
        return _node(form, wanted, (part,), fails=form == "negate", cost=1)

    def _binary(self, tree: Syntax) -> Node:
        left, right = map(self.of, tree.parts)
        if tree.text == "in":
            return self._in(tree, left, right)
        if tree.text in _EQUALITIES:
            left, right = _as_addresses(left, right, tree)
            alike = left.kind is right.kind or (
                Kind.EMPTY_LIST in (left.kind, right.kind) and (left.kind.element or right.kind.element)
            )
            if not alike or left.kind is Kind.ENTRIES:
                raise self._unlike(tree, left, right)
            return _node(tree.text, Kind.BOOL, (left, right), cost=1)
        if tree.text in _ARITHMETIC:
            joins = tree.text == "+" and left.kind in (Kind.STRING, *LISTS.values())
            if left.kind is not right.kind or not (joins or left.kind is Kind.INT):
                raise self._unlike(tree, left, right)
            return _node("join" if joins else tree.text, left.kind, (left, right), fails=not joins, cost=1)
        if left.kind is not right.kind or left.kind not in _ORDERED:
            raise self._unlike(tree, left, right)
        return _node(tree.text, Kind.BOOL, (left, right), cost=1)

    def _unlike(self, tree: Syntax, left: Node, right: Node) -> ExpressionError:
        return ExpressionError(
            tree.position, f"{tree.text} does not go with a {left.kind.value} and a {right.kind.value}"
        )

    def _in(self, tree: Syntax, left: Node, right: Node) -> Node:
        if right.kind is Kind.ENTRIES:
            return self._entry("has_entry", right, left, tree.parts[0].position)
        if left.kind is Kind.ADDRESS and right.form == "constant" and right.kind is Kind.STRINGS:
            found = right.value if isinstance(right.value, tuple) else ()
            addresses = tuple(_address(text, tree.parts[1].position) for text in found)
            right = Node("constant", Kind.STRINGS, value=addresses, cost=0)
        elif right.kind is not Kind.EMPTY_LIST and right.kind.element is not left.kind:
            raise ExpressionError(tree.position, f"a {left.kind.value} is not looked for in a {right.kind.value}")
        return _node("in", Kind.BOOL, (left, right), cost=1)

    def _chain(self, tree: Syntax) -> Node:
        parts = tuple(map(self.of, tree.parts))
        for part, written in zip(parts, tree.parts, strict=True):
            if part.kind is not Kind.BOOL:
                raise ExpressionError(
                    written.position,
                    f"{'&&' if tree.form == 'all' else '||'} joins conditions, not a {part.kind.value}",
                )
        return _node("and" if tree.form == "all" else "or", Kind.BOOL, parts, cost=0)

    def _choice(self, tree: Syntax) -> Node:
        condition, chosen, other = map(self.of, tree.parts)
        if condition.kind is not Kind.BOOL:
            raise ExpressionError(tree.position, f"? follows a condition, not a {condition.kind.value}")
        if chosen.kind is not other.kind:
            raise ExpressionError(
                tree.parts[2].position,
                f"both sides of : are of one type, not {chosen.kind.value} and {other.kind.value}",
            )
        return _node("choice", chosen.kind, (condition, chosen, other), cost=1)


def _node(
    form: str, kind: Kind, parts: tuple[Node, ...], *, cost: int, fails: bool = False, value: object = None
) -> Node:
    return Node(
        form,
        kind,
        parts,
        value,
        fails=fails or any(part.fails for part in parts),
        cost=cost + sum(part.cost for part in parts),
    )


def _constant(value: object) -> Node:
    kind = Kind.BOOL if isinstance(value, bool) else Kind.INT if isinstance(value, int) else Kind.STRING
    return Node("constant", kind, value=value, cost=0)


def _as_addresses(left: Node, right: Node, tree: Syntax) -> tuple[Node, Node]:
    if left.kind is Kind.ADDRESS and right.form == "constant" and right.kind is Kind.STRING:
        return left, Node("constant", Kind.ADDRESS, value=_address(right.value, tree.parts[1].position), cost=0)
    if right.kind is Kind.ADDRESS and left.form == "constant" and left.kind is Kind.STRING:
        return Node("constant", Kind.ADDRESS, value=_address(left.value, tree.parts[0].position), cost=0), right
    return left, right


def _address(text: object, position: int) -> str:
    try:
        return normal(*parse_address(str(text)))
    except ValueError as error:
        raise ExpressionError(position, str(error)) from None


def _path(tree: Syntax) -> str:
    if tree.form == "name":
        return tree.text
    if tree.form == "select" and (before := _path(tree.parts[0])):
        return f"{before}.{tree.text}"
    return ""


def _start(tree: Syntax) -> int:
    return _start(tree.parts[0]) if tree.form == "select" else tree.position
