"""Poisoned telemetry: whoever can make events appear can neither make the engine grow, nor stop, nor blind it."""

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
from gatefold.activity.v1 import activity_pb2

from services.abuse.domain.finding import Entity, Scope
from services.abuse.engine.catalogue import Catalogue
from services.abuse.engine.columns import LONGEST_TEXT, SITE
from services.abuse.engine.engine import Engine
from tests.support.activities import BEGIN, Story, activity, hashed

pytestmark = pytest.mark.case("edge-15")

MILLISECONDS = BEGIN * 1000


@cache
def catalogue() -> Catalogue:
    return Catalogue.load()


def bytes_held(engine: Engine) -> int:
    return sum(
        column.nbytes
        for group in engine._groups().values()
        for columns in ([group.table.keys, group.table.latest], *(k.state.values() for k in group.kernels.values()))
        for column in columns
    )


def stuffing(account: str = "acct_victim", begin: float = 0.0) -> list[activity_pb2.Activity]:
    story = Story()
    for index in range(25):
        story.sign_in(begin + index, f"person {index}", account=account, address="attacker")
    return story.events


def accused(engine: Engine, events: list[activity_pb2.Activity], arrived: list[int] | None = None) -> set[bytes]:
    return {one.entity_hash for one in engine.feed(events, arrived) if one.confidence > 0.97}


def told_by_a_site(events: list[activity_pb2.Activity]) -> list[activity_pb2.Activity]:
    """Returns events as a publisher's own site sends them."""
    for one in events:
        one.caller_kind = SITE
    return events


def test_what_a_publisher_says_of_an_address_accuses_it_there_and_nowhere_else() -> None:
    engine = Engine(catalogue())
    found = engine.feed(told_by_a_site(stuffing("acct_hostile")))
    about = [one for one in found if one.entity_hash == hashed("address", "attacker")]
    assert {one.detector for one in about} >= {"stuffing-address"}
    assert {one.account for one in about} == {"acct_hostile"}
    # Nor does it tip what others have seen of the address themselves.
    honest = stuffing("acct_victim", begin=30)[:3]
    alone = [(one.detector, one.confidence) for one in Engine(catalogue()).feed(honest)]
    assert [(one.detector, one.confidence) for one in engine.feed(honest)] == alone
    assert not [one for one in alone if one[1] > 0.5]


def test_what_a_publisher_says_of_an_address_clears_it_for_nobody_else() -> None:
    engine = Engine(catalogue())
    for day in range(3):
        story = Story()
        for index in range(30):
            story.sign_in(day * 90_000 + index, f"friend {index}", ok=True, account="acct_hostile", address="attacker")
        engine.feed(told_by_a_site(story.events))
    everybody = Entity(Scope.ADDRESS, hashed("address", "attacker"))
    own = replace(everybody, account="acct_hostile")
    stranger = replace(everybody, account="acct_victim")
    known = engine._acquaintance.count([everybody, own, stranger], engine._reader.latest_ms)
    assert known[own] > 20
    assert (known[everybody], known[stranger]) == (0, 0)


def poison(seed: int) -> Iterator[activity_pb2.Activity]:
    """Yields events with everything in them that a field can hold."""
    chance = random.Random(seed)
    texts = ("", "x" * 1_000_000, "\x00", "acct_one", "é" * 300, "sign_in.password", "SUBSCRIBER")
    numbers = (0, 1, -1, 200, 404, 2**31 - 1, -(2**31))
    wide = (0, 1, -1, 2**63 - 1, -(2**63))
    hashes = (b"", b"short", b"\x00" * 16, b"\xff" * 16, b"y" * 1000)
    for _ in range(300):
        made = activity_pb2.Activity(
            account_id=chance.choice(texts),
            http_request_method=chance.choice(texts),
            http_route=chance.choice(texts),
            http_response_status_code=chance.choice(numbers),
            client_address_hash=chance.choice((*hashes, chance.randbytes(16))),
            client_network_hash=chance.choice(hashes),
            user_agent_hash=chance.choice(hashes),
            caller_kind=chance.choice(texts),
            actor_hash=chance.choice(hashes),
            duration_micros=chance.choice(wide),
            problem_reason=chance.choice(texts),
            request_id=chance.choice(texts),
            event_name=chance.choice((*texts, "payment.attempt", "meter.read", "api_key.leaked")),
            target_hash=chance.choice((*hashes, chance.randbytes(16))),
            device_hash=chance.choice(hashes),
            geo_country_iso_code=chance.choice(texts),
            client_asn=chance.choice((0, 2**32 - 1)),
            geo_location_lat=chance.choice(numbers),
            geo_location_lon=chance.choice(numbers),
            http_request_body_size=chance.choice(wide),
            amount_minor=chance.choice(wide),
        )
        if chance.random() < 0.9:
            made.time.seconds = chance.choice((*wide, BEGIN, BEGIN + 10**9, BEGIN - 10**9))
            made.time.nanos = chance.choice(numbers)
        yield made


@pytest.mark.parametrize("arrives", [True, False])
def test_no_value_of_any_field_stops_the_engine_or_makes_it_grow(arrives: bool) -> None:
    engine = Engine(catalogue())
    before = bytes_held(engine)
    for seed in range(3):
        events = list(poison(seed))
        engine.feed(events, [MILLISECONDS + seed] * len(events) if arrives else None)
    assert bytes_held(engine) == before
    # A new engine that takes up the snapshot finds the attack, too: nothing in the state is beyond use.
    other = Engine(catalogue())
    other.restore(engine.snapshot())
    assert hashed("address", "attacker") in accused(other, stuffing(), [MILLISECONDS + 60_000] * 25)


def test_texts_that_are_too_long_count_as_absent_and_are_not_kept() -> None:
    engine = Engine(catalogue())
    events = [activity("sign_in.password", at, account=f"{at}" + "x" * 100_000, address="a") for at in range(200)]
    engine.feed(events)
    kept = [text for texts in engine._reader._texts.values() for text in texts]
    assert kept
    assert sum(map(len, kept)) < 200 * LONGEST_TEXT
    assert len(engine.snapshot()) < 1_000_000
    long = activity("api_key.leaked", 300, actor="key", account="a" * 1_000_000, request_id="r" * 1_000_000)
    found = engine.feed([long])
    assert [(one.account, len(one.request_id)) for one in found] == [(None, 128)]
    assert len(engine.snapshot()) < 1_000_000


def test_ever_new_texts_are_not_kept_without_bound() -> None:
    engine = Engine(catalogue())
    for start in range(0, 60_000, 4000):
        events = [activity("", 0, account=f"acct_{start + at}", http_route=f"/{start + at}") for at in range(4000)]
        engine.feed(events)
        for texts in engine._reader._texts.values():
            assert len(texts) <= texts.hashes.shape[0] == 16_384


@pytest.mark.parametrize("forged", [10**9, 86_400 * 30, -(10**9), -86_400 * 30])
def test_forged_times_of_one_account_blind_nobody_else(forged: int) -> None:
    engine = Engine(catalogue())
    # The same address and people appear in events of a hostile account, far from now.
    hostile = stuffing("acct_hostile", begin=forged)[:3]
    engine.feed(hostile, [MILLISECONDS] * len(hostile))
    seen = accused(engine, stuffing(begin=1), [MILLISECONDS + 30_000] * 25)
    assert hashed("address", "attacker") in seen


def test_events_of_the_future_are_taken_to_be_from_their_arrival() -> None:
    engine = Engine(catalogue())
    events = [activity("api_key.leaked", 10**8, actor=f"key {index}") for index in range(3)]
    assert {one.at.timestamp() for one in engine.feed(events, [MILLISECONDS] * 3)} == {float(BEGIN)}


def test_a_flood_of_one_account_takes_no_room_from_the_others() -> None:
    engine = Engine(catalogue())
    before = bytes_held(engine)
    slow = stuffing()
    engine.feed(slow[:3])
    story = Story()
    for index in range(40_000):
        story.events.append(
            activity(
                "sign_in.password" if index % 2 else "",
                4 + index / 10_000,
                account="acct_flood",
                address=f"{index}",
                target=f"{index}",
                actor=f"{index}",
                status=200,
            )
        )
    assert not {one.account for one in engine.feed(story.events)} - {None, "acct_flood"}
    assert bytes_held(engine) == before
    # What was known of the attacker before the flood still counts.
    found = [one for one in engine.feed(slow[3:6]) if one.entity_hash == hashed("address", "attacker")]
    assert found
    assert found[0].evidence["targets"].value > 3.5


def test_the_work_of_an_event_does_not_grow_with_what_is_in_it() -> None:
    # Counted, not timed: however long texts are and whatever times say, an event is placed in as many tables.
    engine = Engine(catalogue())
    placed = 0
    for group in engine._groups().values():
        table, place = group.table, group.table.place

        def counting(*args: object, place: object = place) -> object:
            nonlocal placed
            placed += 1
            return place(*args)  # type: ignore[operator]

        table.place = counting  # type: ignore[method-assign, assignment]
    ordinary = [activity("", at, actor="a", address="b", target="c", caller_kind="SUBSCRIBER") for at in range(500)]
    engine.feed(ordinary)
    usual, placed = placed, 0
    spread = [
        activity("", at * 5000, actor="a", address="b", target="c", caller_kind="SUBSCRIBER", account="x" * 200)
        for at in range(500)
    ]
    engine.feed(spread)
    assert 0 < placed <= 2 * usual
