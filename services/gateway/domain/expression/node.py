"""Owns expressions as trees: as they were written, and as they were understood."""

from dataclasses import dataclass

from services.gateway.domain.expression.schema import Field, Kind


@dataclass(frozen=True, slots=True)
class Syntax:
    """A part of an expression as it was written."""

    form: str
    """`literal`, `list`, `name`, `select`, `index`, `call`, `method`, `unary`, `binary`, `all`, `any`, `choice`."""
    position: int
    parts: tuple["Syntax", ...] = ()
    text: str = ""
    """Name or operator."""
    value: bool | int | str = False
    """Of a literal."""
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an expression that was understood: every one has a type."""

    form: str
    """`constant`, `field`, `list`, `entry`, `has_entry`, `and`, `or`, `not`, `choice`, `negate`, `size`, `in`,
    `starts_with`, `ends_with`, `contains`, `matches`, `in_cidr`, `in_list`, or an operator.
    """
    kind: Kind
    parts: tuple["Node", ...] = ()
    value: object = None
    """Of a constant; the name of a list, of an entry; the text of a pattern."""
    field: Field | None = None
    fails: bool = False
    """Whether evaluating it can fail: no such key, overflow, division by zero."""
    cost: int = 1
    """Of the whole part, in units of one comparison."""
