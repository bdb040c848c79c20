"""Tests of libs/ids."""

import itertools
import os
from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs import ids
from libs.clock import FixedClock
from libs.errors import GatefoldError, Kind

# The TypeID specification's own examples (spec/valid.yml).
SPECIFIED = [
    ("00000000-0000-0000-0000-000000000000", "prefix_00000000000000000000000000"),
    ("00000000-0000-0000-0000-000000000001", "prefix_00000000000000000000000001"),
    ("00000000-0000-0000-0000-00000000000a", "prefix_0000000000000000000000000a"),
    ("00000000-0000-0000-0000-000000000010", "prefix_0000000000000000000000000g"),
    ("00000000-0000-0000-0000-000000000020", "prefix_00000000000000000000000010"),
    ("ffffffff-ffff-ffff-ffff-ffffffffffff", "prefix_7zzzzzzzzzzzzzzzzzzzzzzzzz"),
    ("0110c853-1d09-52d8-d73e-1194e95b5f19", "prefix_0123456789abcdefghjkmnpqrs"),
    ("01890a5d-ac96-774b-bcce-b302099a8057", "prefix_01h455vb4pex5vsknk084sn02q"),
]


@pytest.mark.parametrize(("number", "text"), SPECIFIED)
def test_text_form_is_that_of_the_specification(number: str, text: str) -> None:
    assert ids.encode("prefix", UUID(number)) == text
    assert ids.decode("prefix", text) == UUID(number)


@given(st.uuids())
def test_every_identifier_comes_back_from_its_text(value: UUID) -> None:
    assert ids.decode("sub", ids.encode("sub", value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sub",
        "sub_",
        "acct_01h455vb4pex5vsknk084sn02q",  # another prefix
        "sub01h455vb4pex5vsknk084sn02q",  # no separator
        "sub-01h455vb4pex5vsknk084sn02q",
        "SUB_01h455vb4pex5vsknk084sn02q",
        "sub_01H455VB4PEX5VSKNK084SN02Q",  # upper case
        "sub_8zzzzzzzzzzzzzzzzzzzzzzzzz",  # more than 128 bits
        "sub_01h455vb4pex5vsknk084sn02",  # too short
        "sub_01h455vb4pex5vsknk084sn02q1",  # too long
        "sub_01h455vb4pex5vsknk084sn02q\n",
        "sub_01h455vb4pex5vsknk084sn02i",  # not in the alphabet
        "sub_01h455vb4pex5vsknk084sn02٣",
        "sub_sub_01h455vb4pex5vsknk084sn02q",
    ],
)
def test_other_texts_are_refused_naming_the_field(text: str) -> None:
    with pytest.raises(GatefoldError) as caught:
        ids.decode("sub", text, field="subscription_id")

    assert (caught.value.kind, caught.value.reason) == (Kind.INVALID, "id_malformed")
    assert caught.value.violations[0].field == "subscription_id"


def test_a_prefix_that_is_none_is_a_fault_of_the_code() -> None:
    with pytest.raises(ValueError, match="not an id prefix"):
        ids.encode("Sub", UUID(int=0))


def test_prefix_of_an_unknown_identifier_is_what_stands_before_the_last_underscore() -> None:
    assert ids.prefix_of("some_thing_01h455vb4pex5vsknk084sn02q") == "some_thing"
    assert ids.prefix_of("01h455vb4pex5vsknk084sn02q") == ""


def test_identifiers_are_uuids_of_version_7_with_the_time_in_front() -> None:
    at = datetime(2026, 3, 1, 12, 0, 0, 123_000, tzinfo=UTC)

    value = ids.IdMaker(FixedClock(at), os.urandom).new()

    assert (value.version, value.variant) == (7, RFC_4122)
    assert value.int >> 80 == int(at.timestamp() * 1000)


def test_identifiers_rise_while_the_clock_stands_still() -> None:
    maker = ids.IdMaker(FixedClock(), os.urandom)

    made = [maker.new() for _ in range(5_000)]

    assert all(earlier < later for earlier, later in itertools.pairwise(made))
    assert {(value.version, value.variant) for value in made} == {(7, RFC_4122)}


def test_identifiers_rise_when_the_clock_steps_back() -> None:
    clock = FixedClock()
    maker = ids.IdMaker(clock, os.urandom)
    before = maker.new()
    clock.advance(timedelta(hours=-1))

    assert maker.new() > before


def test_identifiers_rise_when_the_counter_of_a_millisecond_is_used_up() -> None:
    # All ones: the counter starts as high as it can and takes the largest steps.
    maker = ids.IdMaker(FixedClock(), lambda size: b"\xff" * size)
    maker._counter = 2**74 - 2**33
    maker._millisecond = int(FixedClock().wall().timestamp() * 1000)

    made = [maker.new() for _ in range(5)]

    assert all(earlier < later for earlier, later in itertools.pairwise(made))
    assert made[-1].int >> 80 > made[0].int >> 80


def test_two_makers_at_the_same_moment_do_not_meet() -> None:
    first, second = (ids.IdMaker(FixedClock(), os.urandom) for _ in range(2))

    assert not {first.new() for _ in range(1_000)} & {second.new() for _ in range(1_000)}
