"""Owns what the edge reads from a message descriptor: fields, kinds of values, names in JSON, rules."""

from dataclasses import dataclass
from enum import Enum
from functools import cache

from gatefold.edge.v1 import policy_pb2
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

DEFAULT_MAX_LENGTH = 1000
"""Code points of a text whose rule states no `max_len`."""
DEFAULT_MAX_ITEMS = 100
"""Items of a list or map whose rule states no `max_items`."""
MAX_KEY_LENGTH = 100
"""Code points of a map's key."""

RAW_BODY = "google.api.HttpBody"


class UnsupportedMessageError(Exception):
    """A message has a field that this edge has no JSON form for; found at start, never while serving."""


class Kind(Enum):
    """Kinds of values that JSON and protobuf write differently."""

    TEXT = "text"
    BYTES = "bytes"
    BOOL = "bool"
    INTEGER = "integer"
    FLOAT = "float"
    DOUBLE = "double"
    ENUM = "enum"
    TIMESTAMP = "timestamp"
    DURATION = "duration"
    RAW = "raw"
    MESSAGE = "message"


_WELL_KNOWN = {
    "google.protobuf.Timestamp": Kind.TIMESTAMP,
    "google.protobuf.Duration": Kind.DURATION,
    RAW_BODY: Kind.RAW,
}
_KINDS = {
    FieldDescriptor.TYPE_STRING: Kind.TEXT,
    FieldDescriptor.TYPE_BYTES: Kind.BYTES,
    FieldDescriptor.TYPE_BOOL: Kind.BOOL,
    FieldDescriptor.TYPE_FLOAT: Kind.FLOAT,
    FieldDescriptor.TYPE_DOUBLE: Kind.DOUBLE,
    FieldDescriptor.TYPE_ENUM: Kind.ENUM,
}
_BOUNDS = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}


@dataclass(frozen=True)
class Shape:
    """One value: its kind, and what its kind needs."""

    kind: Kind
    low: int = 0
    high: int = 0
    message: Descriptor | None = None
    enum: EnumDescriptor | None = None

    @property
    def wide(self) -> bool:
        """Whether it is an integer that JSON numbers may not hold exactly."""
        return self.kind is Kind.INTEGER and self.high.bit_length() > 53


@dataclass(frozen=True)
class Field:
    """One field of a message."""

    name: str
    shape: Shape
    rule: policy_pb2.Rule
    repeated: bool
    key: Shape | None
    """The keys' shape, of a map; `shape` is then the values'."""
    presence: bool
    """Whether absent and default differ (`optional`, message, member of a oneof)."""
    required: bool
    oneof: str | None
    descriptor: FieldDescriptor

    @property
    def skips_default(self) -> bool:
        """Whether the default value counts as not given, and so meets every rule."""
        return not self.presence and not self.required and not self.repeated and self.key is None

    @property
    def max_items(self) -> int:
        """Greatest number of items."""
        return self.rule.max_items or DEFAULT_MAX_ITEMS

    @property
    def min_items(self) -> int:
        """Least number of items; a required list or map is not empty."""
        return max(self.rule.min_items, 1 if self.required else 0)

    @property
    def max_length(self) -> int:
        """Greatest number of code points of a text; 0 for bytes without a limit of their own."""
        return self.rule.max_len or (DEFAULT_MAX_LENGTH if self.shape.kind is Kind.TEXT else 0)

    @property
    def min_length(self) -> int:
        """Least number of code points, or bytes; a required text is not empty."""
        return max(self.rule.min_len, 1 if self.required and not self.repeated and self.key is None else 0)


@cache
def fields_of(descriptor: Descriptor) -> tuple[Field, ...]:
    """Returns the fields in the order of their declaration; raises UnsupportedMessageError."""
    return tuple(_field(field) for field in descriptor.fields)


@cache
def enum_names(enum: EnumDescriptor) -> dict[int, str]:
    """Returns the JSON names by number; the zero value `…_UNSPECIFIED` is not among them."""
    names: dict[int, str] = {}
    for value in enum.values:
        name = json_enum_name(enum.name, value.name)
        if not (value.number == 0 and name == "unspecified"):
            names.setdefault(value.number, name)
    return names


def json_enum_name(enum: str, value: str) -> str:
    """Returns the JSON name of an enum's value: `month` for INTERVAL_MONTH of Interval."""
    prefix = "".join(f"_{letter}" if letter.isupper() else letter for letter in enum).strip("_").upper() + "_"
    return value.removeprefix(prefix).lower()


def _field(field: FieldDescriptor) -> Field:
    options = field.GetOptions()
    behaviors = options.Extensions[field_behavior_pb2.field_behavior]
    entry = field.message_type if field.message_type and field.message_type.GetOptions().map_entry else None
    value = entry.fields_by_name["value"] if entry else field
    oneof = field.containing_oneof
    return Field(
        name=field.name,
        shape=_shape(value),
        rule=options.Extensions[policy_pb2.rule],
        repeated=field.is_repeated and entry is None,
        key=_shape(entry.fields_by_name["key"]) if entry else None,
        presence=field.has_presence,
        required=field_behavior_pb2.REQUIRED in behaviors,
        # An `optional` field stands in a oneof of its own, named after it.
        oneof=oneof.name if oneof and (len(oneof.fields) > 1 or oneof.name != f"_{field.name}") else None,
        descriptor=field,
    )


def _shape(field: FieldDescriptor) -> Shape:
    if field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type:
        name = field.message_type.full_name
        kind = _WELL_KNOWN.get(name, Kind.MESSAGE)
        if kind is Kind.MESSAGE and name.startswith("google."):
            raise UnsupportedMessageError(f"{field.full_name}: {name} has no JSON form here")
        return Shape(kind, message=field.message_type)
    if field.type in _KINDS:
        return Shape(_KINDS[field.type], enum=field.enum_type)
    if field.cpp_type not in _BOUNDS:
        raise UnsupportedMessageError(f"{field.full_name}: groups have no JSON form here")
    low, high = _BOUNDS[field.cpp_type]
    return Shape(Kind.INTEGER, low, high)
