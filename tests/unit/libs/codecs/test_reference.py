"""The codecs beside google.protobuf.json_format, on every message of the contracts and one with everything in it."""

from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from google.protobuf import descriptor_pb2, json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.codecs import (
    RequestCodecs,
    RequestParser,
    ResponseCodecs,
    ResponseRenderer,
    UnsupportedMessageError,
)
from libs.codecs.shapes import Kind, fields_of
from libs.errors import GatefoldError
from tests.support.messages import contracts, from_reference, messages, to_reference
from tests.unit.libs.codecs import torture

TORTURE = torture.message("Torture")
QUIET = settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
LOUD = settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))


def descriptors() -> list[Descriptor]:
    pool = contracts()
    names = []
    files = descriptor_pb2.FileDescriptorSet.FromString(Path("gen/descriptors.binpb").read_bytes()).file
    for file in files:
        if file.package.startswith("gatefold."):
            names += [f"{file.package}.{message.name}" for message in file.message_type]
    return [pool.FindMessageTypeByName(name) for name in sorted(names)]


@cache
def parser(descriptor: Descriptor) -> RequestParser:
    return RequestCodecs().parser(descriptor)


@cache
def renderer(descriptor: Descriptor) -> ResponseRenderer:
    return ResponseCodecs().renderer(descriptor)


def supported(descriptor: Descriptor) -> bool:
    try:
        parser(descriptor)
        renderer(descriptor)
    except UnsupportedMessageError:
        return False
    return True


OURS = [descriptor for descriptor in descriptors() if supported(descriptor)]


def same(one: Message, other: Message) -> bool:
    return one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


def check_rendering(message: Message) -> None:
    written = orjson.loads(renderer(message.DESCRIPTOR)(message))
    reference = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    assert written == from_reference(reference, message.DESCRIPTOR)
    assert list(written) == [f.name for f in fields_of(message.DESCRIPTOR) if f.shape.kind is not Kind.RAW]


def check_round_trip(message: Message) -> None:
    written = orjson.loads(renderer(message.DESCRIPTOR)(message))
    parsed = parser(message.DESCRIPTOR)(written)
    assert same(parsed, message)
    reference = GetMessageClass(message.DESCRIPTOR)()
    json_format.ParseDict(to_reference(written, message.DESCRIPTOR), reference)
    assert same(parsed, reference)


def test_only_messages_with_any_have_no_json_form() -> None:
    left = {d.full_name for d in descriptors()} - {d.full_name for d in OURS}
    assert left == {
        "gatefold.events.v1.Envelope",
        "gatefold.events.v1.EnvelopeBatch",
        "gatefold.events.v1.ListAggregateEventsResponse",
        "gatefold.events.v1.ListEventsResponse",
    }
    assert len(OURS) > 100


@pytest.mark.parametrize("descriptor", OURS, ids=lambda d: d.full_name.removeprefix("gatefold."))
def test_every_message_is_written_and_read_as_the_reference_does(descriptor: Descriptor) -> None:
    @QUIET
    @given(messages(descriptor))
    def check(message: Message) -> None:
        check_rendering(message)
        check_round_trip(message)

    check()


@LOUD
@given(messages(TORTURE))
def test_the_torture_message_is_written_and_read_as_the_reference_does(message: Message) -> None:
    check_rendering(message)
    check_round_trip(message)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 65), 1 << 65)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        [
            "",
            "1",
            "-7",
            "1.0",
            "1e3",
            "01",
            "+1",
            " 1",
            "1_0",
            "٣",
            "NaN",
            "Infinity",
            "-Infinity",
            "inf",
            "true",
            "red",
            "COLOUR_RED",
            "zero",
            "unspecified",
            "3s",
            "3.5s",
            "-0.5s",
            "3.s",
            "1h",
            "QUJD",
            "QUI=",
            "QUI",
            "QQ",
            "Q",
            "_-A",
            "Q Q=",
            "2026-11-01T09:00:00Z",
            "2026-11-01T09:00:00.5+02:00",
            "2026-11-01t09:00:00z",
            "2026-02-30T00:00:00Z",
            "2026-11-01",
            "2026-11-01T09:00:60Z",
            "0001-01-01T00:00:00+01:00",
            "2026-11-01T24:00:00Z",
        ]
    )
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=600, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_what_is_accepted_is_accepted_by_the_reference_with_the_same_meaning(data: st.DataObject) -> None:
    fields = fields_of(TORTURE)
    chosen = data.draw(st.sampled_from(fields))
    value: Any = {
        chosen.name: data.draw(
            JSON
            | st.lists(JSON, max_size=2)
            | st.dictionaries(
                st.sampled_from(["a", "1", "-1", "true", "false", "01", "99999999999999999999"]), JSON, max_size=2
            )
        )
    }
    try:
        parsed = parser(TORTURE)(value)
    except GatefoldError as error:
        refusal = error
    else:
        reference = GetMessageClass(TORTURE)()
        json_format.ParseDict(to_reference(value, TORTURE), reference)
        assert same(parsed, reference)
        return
    assert refusal.reason == "request_invalid"
    assert all(violation.field.startswith(chosen.name) for violation in refusal.violations)
