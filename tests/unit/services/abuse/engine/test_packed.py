"""Packed activities: their columns are what the library reads, however somebody wrote them."""

import random
from typing import Any

import pytest
from gatefold.activity.v1 import activity_pb2
from google.protobuf.message import DecodeError

from services.abuse.engine.packed import MOST_ACTIVITY_BYTES, Activities, Activity, entity_key, split

FIELDS = list(Activity.DESCRIPTOR.fields)
HASHES = [field.name for field in FIELDS if field.type == field.TYPE_BYTES]
TEXTS = [field.name for field in FIELDS if field.type == field.TYPE_STRING]
NUMBERS = [field.name for field in FIELDS if field.name not in (*HASHES, *TEXTS, "time")]
SMALL = {"http_response_status_code", "geo_location_lat", "geo_location_lon"}


def some(chance: random.Random) -> Activity:
    """Any fields, with values at the borders of what a number can be."""
    activity = Activity()
    for name in HASHES:
        if chance.random() < 0.6:
            setattr(activity, name, chance.randbytes(chance.choice((16, 16, 16, 8, 17, 130))))
    for name in TEXTS:
        if chance.random() < 0.6:
            setattr(activity, name, chance.choice(("x", "acct_1", "é" * 20, "y" * chance.choice((127, 128, 300)))))
    for name in NUMBERS:
        if chance.random() < 0.4:
            most = {"client_asn": 32, "reach": 2, "verified_crawler": 1, "refused_by_edge": 1}.get(name)
            bits = 31 if name in SMALL else 63
            value = chance.randrange(1 << chance.randrange(1, (most or bits) + 1))
            setattr(activity, name, value if most or chance.random() < 0.7 else -value)
    if chance.random() < 0.8:
        activity.time.seconds = chance.choice((1_790_000_000, 0, -5, 1 << 40))
        activity.time.nanos = chance.choice((0, 999_999_999, 5))
    return activity


def rewritten(activity: Activity, chance: random.Random) -> bytes:
    """The same, or other fields, as no writer of ours writes it."""
    match chance.randrange(6):
        case 0:
            alone = [Activity() for _ in activity.ListFields()]
            for one, (field, value) in zip(alone, activity.ListFields(), strict=True):
                one.time.CopyFrom(value) if field.name == "time" else setattr(one, field.name, value)
            chance.shuffle(alone)
            return b"".join(one.SerializeToString() for one in alone)
        case 1:
            # A field that nobody knows yet, and one that is said twice.
            return b"\xa2\x06\x03new" + Activity(account_id="first").SerializeToString() + activity.SerializeToString()
        case 2:
            # A truth that is more than one, a length and a number that are longer than need be.
            return b"\x12\x81\x00x" + b"\x28\xc8\x81\x00" + b"\x68\x05"
        case 3:
            # A status that is cut, and times that are put together.
            return b"\x0a\x02\x10\x05\x0a\x02\x08\x07" + b"\x28\xff\xff\xff\xff\x7f"
    return activity.SerializeToString()


def item(packed: bytes) -> bytes:
    """An activity as it stands in a batch."""
    size, length = len(packed), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return b"\x0a" + length + bytes([size]) + packed


def batch_of(*activities: bytes, lost: int = 0) -> bytes:
    return b"".join(map(item, activities)) + activity_pb2.ActivityBatch(lost=lost).SerializeToString()


def columns(activities: Activities) -> dict[str, Any]:
    found: dict[str, Any] = {name: activities.hashes(name).tolist() for name in HASHES}
    found |= {name: activities.numbers(name).tolist() for name in NUMBERS}
    found["moments"] = [side.tolist() for side in activities.moments()]
    for name in TEXTS:
        found[name] = [""] * len(activities)
        for row, alone in zip(*activities.texts((name,)), strict=True):
            found[name][row] = getattr(Activity.FromString(alone), name)
    for name in ("verdict_id", "geo_location_lat", "account_id"):
        found[f"has {name}"] = activities.has(name).tolist()
    return found


def read_by_the_library(messages: list[Activity]) -> dict[str, Any]:
    found: dict[str, Any] = {name: [entity_key(getattr(one, name)) for one in messages] for name in HASHES}
    found |= {name: [int(getattr(one, name)) for one in messages] for name in NUMBERS}
    found["moments"] = [[one.time.seconds for one in messages], [one.time.nanos for one in messages]]
    found |= {name: [getattr(one, name) for one in messages] for name in TEXTS}
    for name in ("verdict_id", "account_id"):
        found[f"has {name}"] = [bool(getattr(one, name)) for one in messages]
    found["has geo_location_lat"] = [one.HasField("geo_location_lat") for one in messages]
    return found


@pytest.mark.parametrize("seed", range(20))
def test_columns_are_what_the_library_reads_however_it_was_written(seed: int) -> None:
    chance = random.Random(seed)
    written = [
        rewritten(one, chance) if seed % 2 else one.SerializeToString() for one in (some(chance) for _ in range(60))
    ]
    batches = [split(batch_of(*written[:25], lost=3)), split(b""), split(batch_of(*written[25:]))]
    messages = [Activity.FromString(one) for one in written if len(one) <= MOST_ACTIVITY_BYTES]
    activities = Activities.joined(batches)
    assert [batch.lost for batch in batches] == [3, 0, 0]
    assert list(activities) == messages
    assert columns(activities) == read_by_the_library(messages)
    assert columns(activities.part(10, 31)) == read_by_the_library(messages[10:31])
    assert columns(Activities.of(messages)) == read_by_the_library(messages)


def test_what_is_no_activity_is_left_out_and_named() -> None:
    good = Activity(account_id="acct_1").SerializeToString()
    bad = (b"\x12\x05x", b"\xff" * 20, b"\x28", b"\x0b")
    activities = Activities.joined([split(batch_of(bad[0], good, *bad[1:], good))])
    assert list(activities.unreadable) == [0, 2, 3, 4]
    assert [one.account_id for one in activities] == ["acct_1", "acct_1"]


def test_a_text_that_is_none_is_absent() -> None:
    activities = Activities.joined([split(batch_of(b"\x12\x01\xff"))])
    assert list(activities) == [Activity()]


def test_huge_activities_are_dropped_wherever_they_stand() -> None:
    good, huge = Activity(account_id="acct_1").SerializeToString(), Activity(http_route="x" * 3_000).SerializeToString()
    enormous = Activity(http_route="x" * 100_000).SerializeToString()
    batch = split(batch_of(good, huge, enormous, good, huge, good, lost=2))
    assert (batch.dropped, batch.lost, len(Activities.joined([batch]))) == (3, 2, 3)


def test_what_was_lost_may_be_said_first() -> None:
    good = Activity(account_id="acct_1").SerializeToString()
    batch = split(batch_of(lost=2) + batch_of(good, good))
    assert (batch.lost, len(Activities.joined([batch]))) == (2, 2)


@pytest.mark.parametrize("cut", [b"\x0a", b"\x0a\xff", b"\x0a\xff\xff", b"\x0a\x05x", b"\xff\xff", b"\x0a\x00\x07"])
def test_what_is_no_batch_is_refused(cut: bytes) -> None:
    with pytest.raises(DecodeError):
        split(cut)


def test_noise_is_read_as_the_library_reads_it() -> None:
    chance = random.Random(5)
    octets = (0x0A, 0x12, 0x28, 0x32, 0x68, 0, 1, 2, 16)
    noise = [bytes(chance.choices(octets, k=chance.randrange(12))) for _ in range(4000)]
    messages = [message for one in noise if (message := readable(one)) is not None]
    assert columns(Activities.joined([split(batch_of(*noise))])) == read_by_the_library(messages)
    assert 500 < len(messages) < 3500


def readable(packed: bytes) -> Activity | None:
    try:
        return Activity.FromString(packed)
    except DecodeError:
        return None
