"""Card data never reaches us (PCI DSS, SAQ A): no message of ours has a place for it."""

import re
from pathlib import Path

from google.protobuf import descriptor_pb2

GEN = Path(__file__).resolve().parents[2] / "gen"
CARD_DATA = re.compile(
    r"(^|_)(pan|cvc|cvv|cvc2|cvv2|csc|iban|track_?[12]|card_?number|card|exp(iry)?_(month|year)|security_code)(_|$)"
)


def fields() -> list[str]:
    """Full names of all fields of our own messages."""
    found: list[str] = []

    def walk(prefix: str, message: descriptor_pb2.DescriptorProto) -> None:
        name = f"{prefix}.{message.name}"
        found.extend(f"{name}.{field.name}" for field in message.field)
        for nested in message.nested_type:
            walk(name, nested)

    descriptors = descriptor_pb2.FileDescriptorSet.FromString((GEN / "descriptors.binpb").read_bytes())
    for file in descriptors.file:
        if file.package.startswith("gatefold."):
            for message in file.message_type:
                walk(file.package, message)
    return found


def test_no_message_of_ours_has_a_field_for_card_data() -> None:
    named = fields()
    assert "gatefold.billing.v1.CreateCheckoutRequest.price_id" in named
    assert [name for name in named if CARD_DATA.search(name.rpartition(".")[2])] == []


def test_the_pattern_finds_what_it_looks_for() -> None:
    for name in ("card_number", "number_of_card", "cvc", "expiry_month", "exp_year", "pan"):
        assert CARD_DATA.search(name), name
    for name in ("discard", "company", "expires_at", "number"):
        assert not CARD_DATA.search(name), name
