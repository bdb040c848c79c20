"""Owns random messages that satisfy their contracts' rules, and the bridge to proto3's reference JSON."""

import math
import string
import tempfile
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_tools import protoc
from hypothesis import strategies as st

from libs.codecs.shapes import Field, Kind, Shape, enum_names, fields_of

ROOT = Path(__file__).resolve().parents[2]
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)


@cache
def contracts() -> DescriptorPool:
    """The pool of all our contracts."""
    pool = DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString((ROOT / "gen/descriptors.binpb").read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


@cache
def compiled(source: str) -> bytes:
    """Compiles a proto file's text, which may import our contracts, and returns the descriptor set with comments."""
    well_known = str(resources.files("grpc_tools") / "_proto")
    google_apis = str(Path(str(resources.files("google.api").joinpath("annotations.proto"))).parents[2])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test.proto").write_text(source)
        out = Path(folder) / "out"
        status = protoc.main(
            [
                "protoc",
                f"-I{folder}",
                f"-I{ROOT / 'protos'}",
                f"-I{well_known}",
                f"-I{google_apis}",
                f"--descriptor_set_out={out}",
                "--include_imports",
                "--include_source_info",
                "test.proto",
            ]
        )
        assert status == 0
        return out.read_bytes()


def pool_of(descriptor_set: bytes) -> DescriptorPool:
    """Returns a pool with the files of a descriptor set."""
    pool = DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def messages(descriptor: Descriptor, depth: int = 2) -> st.SearchStrategy[Message]:
    """Returns random messages of a type that satisfy all its rules."""
    return _fields(descriptor, depth).map(lambda values: _filled(descriptor, values))


def _fields(descriptor: Descriptor, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    required: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    seen: set[str] = set()
    for field in fields_of(descriptor):
        if field.shape.kind is Kind.RAW or (field.shape.kind is Kind.MESSAGE and depth == 0 and not field.required):
            continue
        if field.oneof:
            if field.oneof in seen:
                continue
            seen.add(field.oneof)
        (required if field.required else optional)[field.name] = _field(field, depth)
    return st.fixed_dictionaries(required, optional=optional)


def _field(field: Field, depth: int) -> st.SearchStrategy[Any]:
    item = _value(field, field.shape, depth)
    most = min(field.max_items, 3)
    if field.repeated:
        least = field.min_items
        unique = field.rule.unique
        return st.lists(item, min_size=least, max_size=max(least, most), unique=unique)
    if field.key is not None:
        return st.dictionaries(_value(None, field.key, depth), item, max_size=most)
    return item


def _value(field: Field | None, shape: Shape, depth: int) -> st.SearchStrategy[Any]:
    rule = field.rule if field else None
    match shape.kind:
        case Kind.TEXT:
            return _text(field)
        case Kind.BOOL:
            return st.booleans()
        case Kind.INTEGER:
            low = rule.gte if rule and rule.HasField("gte") else shape.low
            high = rule.lte if rule and rule.HasField("lte") else shape.high
            return st.integers(low, high)
        case Kind.DOUBLE:
            return st.floats().map(_plain_nan)
        case Kind.FLOAT:
            # At the very edge the reference writes a number that is beyond it.
            return (st.floats(-(2.0**127), 2.0**127, width=32) | st.floats(width=32).filter(_odd)).map(_plain_nan)
        case Kind.BYTES:
            return st.binary(min_size=field.min_length if field else 0, max_size=20)
        case Kind.ENUM if shape.enum is not None:
            return st.sampled_from(list(enum_names(shape.enum)))
        case Kind.TIMESTAMP:
            return st.tuples(st.integers(-62135596800, 253402300799), st.integers(0, 999_999_999) | st.just(0))
        case Kind.DURATION:
            signed = st.tuples(st.integers(0, 315576000000 - 1), st.integers(0, 999_999_999))
            return st.tuples(signed, st.sampled_from((1, -1))).map(
                lambda pair: tuple(pair[1] * part for part in pair[0])
            )
        case Kind.MESSAGE if shape.message is not None:
            return messages(shape.message, max(0, depth - 1))
    raise AssertionError(shape)


def _odd(value: float) -> bool:
    return not math.isfinite(value) or abs(value) < 1


def _plain_nan(value: float) -> float:
    # JSON has one NaN; floating point has many.
    return math.nan if math.isnan(value) else value


def _text(field: Field | None) -> st.SearchStrategy[str]:
    if field is None:
        return TEXT
    rule = field.rule
    if rule.email:
        return st.sampled_from(("ada@news.example", "zoë.o'neil+tag@ünï.example", "x@a-b.co"))
    if rule.uri:
        return st.sampled_from(("https://news.example/a?b=c#d", "http://127.0.0.1:8080", "https://[::1]/%20"))
    if rule.id_prefix:
        return st.text("0123456789abcdefghjkmnpqrstvwxyz", min_size=25, max_size=25).map(
            lambda tail: f"{rule.id_prefix}_0{tail}"
        )
    if rule.pattern:
        return st.from_regex(rule.pattern, fullmatch=True, alphabet=st.sampled_from(string.printable)).filter(
            lambda text: len(text) <= field.max_length
        )
    allowed = list(getattr(rule, "in"))
    if allowed:
        return st.sampled_from(allowed)
    least = field.min_length
    return st.text(
        st.characters(exclude_categories=("Cs",), exclude_characters="\0"),
        min_size=least,
        max_size=max(least, min(field.max_length, 12)),
    )


def _filled(descriptor: Descriptor, values: dict[str, Any]) -> Message:
    message = GetMessageClass(descriptor)()
    for field in fields_of(descriptor):
        if field.name not in values:
            continue
        value, kind = values[field.name], field.shape.kind
        target = getattr(message, field.name)
        if field.repeated:
            for item in value:
                if kind in (Kind.TIMESTAMP, Kind.DURATION):
                    target.add(seconds=item[0], nanos=item[1])
                else:
                    target.append(item)
        elif field.key is not None:
            for key, item in value.items():
                if kind is Kind.MESSAGE:
                    target[key].CopyFrom(item)
                elif kind in (Kind.TIMESTAMP, Kind.DURATION):
                    target[key].seconds, target[key].nanos = item
                else:
                    target[key] = item
        elif kind is Kind.MESSAGE:
            target.CopyFrom(value)
        elif kind in (Kind.TIMESTAMP, Kind.DURATION):
            target.SetInParent()
            target.seconds, target.nanos = value
        else:
            setattr(message, field.name, value)
    return message


def to_reference(value: Any, descriptor: Descriptor) -> Any:
    """Turns our JSON of a message into proto3's: enum names, and no nulls."""
    return _translated(value, descriptor, ours=True)


def from_reference(value: Any, descriptor: Descriptor) -> Any:
    """Turns proto3's JSON of a message (defaults included) into ours."""
    return _translated(value, descriptor, ours=False)


def _translated(value: Any, descriptor: Descriptor, *, ours: bool) -> Any:
    result = {}
    for field in fields_of(descriptor):
        if field.shape.kind is Kind.RAW:
            continue
        inner = value.get(field.name)
        if inner is None:
            if not ours:
                result[field.name] = None
            continue
        if field.repeated:
            result[field.name] = [_translated_value(item, field.shape, ours=ours) for item in inner]
        elif field.key is not None:
            result[field.name] = {key: _translated_value(item, field.shape, ours=ours) for key, item in inner.items()}
        else:
            result[field.name] = _translated_value(inner, field.shape, ours=ours)
    return result


def _translated_value(value: Any, shape: Shape, *, ours: bool) -> Any:
    if shape.kind is Kind.MESSAGE and shape.message is not None:
        return _translated(value, shape.message, ours=ours)
    if shape.kind is Kind.ENUM and shape.enum is not None:
        names = enum_names(shape.enum)
        if ours:
            number = next(number for number, name in names.items() if name == value)
            return shape.enum.values_by_number[number].name
        return names.get(shape.enum.values_by_name[value].number)
    if shape.wide and not ours and abs(int(value)) < 1 << 53:
        return int(value)
    return value
