"""The engine as a whole: no cut into batches changes what is found, and a snapshot takes up where it was made."""

import random
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from gatefold.activity.v1 import activity_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from services.abuse.domain.finding import Entity, Finding, Scope
from services.abuse.engine.catalogue import Catalogue, read
from services.abuse.engine.engine import REPEAT_MS, Engine
from tests.support.activities import BEGIN, Story, activity, hashed

# Every kind of signal, on so few places that keys drive each other out.
EVERYTHING = """
title = "Everything"
family = "everything"
sees = "Every kind of signal."
scope = "address"
per_account = true
events = ["sign_in.password", "payment.attempt"]
prior = -1.0
slots = {slots}
[signals.count]
kind = "count"
key = ["address"]
where = {{ status = 401 }}
window_seconds = 60
steps = [[1.5, 0.25], [3, 0.5]]
[signals.sum]
kind = "sum"
key = ["account", "address"]
of = "amount_minor"
window_seconds = 45
steps = [[500, 0.3], [900, 0.6]]
[signals.different]
kind = "distinct"
key = ["address"]
of = "target"
window_seconds = 30
precision = 4
steps = [[1.5, 0.4], [4, 0.8]]
[signals.age]
kind = "age"
key = ["account", "target"]
where = {{ status = 200 }}
steps = [[0.001, 0.1], [60, 0.2]]
[signals.speed]
kind = "travel"
key = ["account", "target"]
steps = [[900, 0.7]]
[signals.surprise]
kind = "surprise"
key = ["account"]
window_seconds = 20
least = 3
steps = [[1, 0.35]]
[signals.ways]
kind = "distinct"
key = ["asn"]
of = "route"
window_seconds = 3600
precision = 5
steps = [[2, 0.05]]
[signals.providers]
kind = "distinct"
key = ["account"]
of = "asn"
window_seconds = 10
precision = 4
steps = [[2, 0.07]]
[signals.seldom]
kind = "distinct"
key = ["address"]
given = {{ count = {{ most = 1.5 }}, age = {{ least = 0.001, most = 500 }} }}
of = "target"
window_seconds = 50
precision = 4
steps = [[1, 0.11]]
[signals.share]
kind = "ratio"
of = "count"
over = "different"
least = 1
steps = [[0.4, 0.15], [1.2, 0.45]]
[[ladder]]
action = "tag"
confidence = 0.5
seconds = 60
[[ladder]]
action = "block"
confidence = 0.7
seconds = 60
"""


def everything(slots: int = 8) -> Engine:
    return Engine(Catalogue((read("everything", "everything.toml", EVERYTHING.format(slots=slots)),)))


def some_events(seed: int, number: int, keys: int) -> list[activity_pb2.Activity]:
    chance = random.Random(seed)
    at, events = 0.0, []
    for _ in range(number):
        at += chance.choice((0.0, 0.2, 1.0, 7.0, 40.0))
        events.append(
            activity(
                chance.choice(("sign_in.password", "sign_in.password", "payment.attempt", "")),
                # Some come late, as events do.
                at - chance.choice((0.0, 0.0, 0.0, 3.0, 50.0)),
                status=chance.choice((200, 401, 401, 429)),
                account=f"acct_{chance.randrange(2)}",
                address=f"address {chance.randrange(keys)}",
                target=f"target {chance.randrange(keys)}",
                amount_minor=chance.randrange(400),
                client_asn=chance.randrange(4),
                http_route=f"/{chance.randrange(5)}",
                geo_location_lat=chance.randrange(-80, 80),
                geo_location_lon=chance.randrange(-180, 180),
                refused_by_edge=chance.random() < 0.1,
            )
        )
    return events


def fed(engine: Engine, events: list[activity_pb2.Activity], cuts: list[int]) -> list[Finding]:
    bounds = [0, *sorted(cuts), len(events)]
    return [finding for start, end in pairwise(bounds) for finding in engine.feed(events[start:end])]


@given(seed=st.integers(0, 10_000), keys=st.sampled_from((2, 6, 40)), data=st.data())
@settings(max_examples=15, deadline=None)
def test_no_cut_into_batches_changes_what_is_found_or_kept(seed: int, keys: int, data: st.DataObject) -> None:
    events = some_events(seed, 80, keys)
    cuts = data.draw(st.lists(st.integers(0, len(events)), max_size=12))
    whole, cut, single = everything(), everything(), everything()
    found = whole.feed(events)
    assert fed(cut, events, cuts) == found
    assert fed(single, events, list(range(len(events)))) == found
    assert cut.snapshot() == whole.snapshot() == single.snapshot()


def test_the_events_of_that_test_lead_to_findings() -> None:
    assert any(len(everything().feed(some_events(seed, 120, 6))) > 10 for seed in range(5))


@given(seed=st.integers(0, 10_000), at=st.integers(0, 120))
@settings(max_examples=10, deadline=None)
def test_an_engine_takes_up_where_a_snapshot_was_made(seed: int, at: int) -> None:
    events = some_events(seed, 120, 12)
    before = everything()
    before.feed(events[:at])
    after = everything()
    after.restore(before.snapshot())
    assert after.feed(events[at:]) == before.feed(events[at:])
    assert after.snapshot() == before.snapshot()


@pytest.mark.parametrize("damaged", [b"", b"PK\x03\x04 and nothing", b"\x00" * 100])
def test_what_is_no_snapshot_is_refused(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r"no snapshot|format|pickled|magic"):
        everything().restore(damaged)


def test_a_snapshot_fills_only_tables_that_are_what_they_were() -> None:
    events = some_events(1, 120, 6)
    before = everything(8)
    before.feed(events)
    changed = everything(64)
    changed.restore(before.snapshot())
    assert changed.feed(events[:1]) == everything(64).feed(events[:1])


def tried(story: Story, number: int, *, begin: float = 0.0, **fields: object) -> None:
    for index in range(number):
        story.sign_in(begin + index, f"person {index}", address="one", **fields)


def test_what_the_edge_refused_and_too_many_requests_say_nothing() -> None:
    def trials(**fields: object) -> list[activity_pb2.Activity]:
        return [activity("trial.started", at, actor=f"{at}", device="one", **fields) for at in range(9)]

    engine = Engine(Catalogue.load())
    assert engine.feed(trials(refused_by_edge=True) + trials(status=429)) == []
    assert engine.feed(trials())


def test_a_detector_repeats_itself_only_after_a_while_or_when_it_is_surer() -> None:
    story = Story()
    tried(story, 40)
    found = [one for one in Engine(Catalogue.load()).feed(story.events) if one.detector == "stuffing-address"]
    assert 1 < len(found) <= 5
    confidences = [one.confidence for one in found]
    assert confidences == sorted(confidences)
    again = Story()
    tried(again, 1, begin=40 + REPEAT_MS / 1000)
    engine = Engine(Catalogue.load())
    engine.feed(story.events)
    assert [one.detector for one in engine.feed(again.events)].count("stuffing-address") == 1


def test_a_finding_says_what_about_whom_and_why() -> None:
    story = Story()
    tried(story, 40)
    found = next(one for one in Engine(Catalogue.load()).feed(story.events) if one.detector == "stuffing-address")
    assert found.entity == Entity(Scope.ADDRESS, hashed("address", "one"), None)
    assert found.reasons[0] == "credential_stuffing"
    assert found.evidence["targets"].value >= found.evidence["targets"].threshold
    assert found.rule_version.startswith("stuffing-address@")
    assert BEGIN <= found.at.timestamp() <= BEGIN + 40
    assert found.request_id.startswith("req_")
    assert not found.shadow


def test_good_actors_are_people_who_got_in_where_they_have_been_for_a_day() -> None:
    story = Story()
    for day in range(3):
        for person in range(6):
            story.sign_in(day * 86_400 + person, f"person {person}", ok=True, address="office")
        story.sign_in(day * 86_400 + 50, f"stranger {day}", ok=True, address="office")
        story.sign_in(day * 86_400 + 60, "person 0", ok=False, address="elsewhere")
    for person in range(6):
        # Whoever has everybody's passwords is no good company.
        story.sign_in(2 * 86_400 + 70, f"person {person}", ok=True, address="thief")
    for index in range(10):
        story.sign_in(2 * 86_400 + 100 + index, f"somebody {index}", address="office")
    engine = Engine(Catalogue.load())
    engine.feed(story.events)
    names = ("office", "elsewhere", "never", "thief")
    places = {name: Entity(Scope.ADDRESS, hashed("address", name), None) for name in names}
    some_time = datetime(2026, 1, 1, tzinfo=UTC)
    fake = [
        Finding("x", None, one.scope, one.hash, 0.0, 0.5, (), {}, some_time, "", "", False) for one in places.values()
    ]
    known = engine.known(fake)
    assert 5 <= known[places["office"]] <= 7
    assert known[places["elsewhere"]] == known[places["never"]] == known[places["thief"]] == 0


def test_an_event_cannot_be_later_than_its_arrival_nor_much_earlier() -> None:
    forged = [activity("api_key.leaked", at, actor=f"key {at}") for at in (-90_000, 90_000_000, 0)]
    forged.append(activity("api_key.leaked", 0, actor="no time"))
    forged[3].ClearField("time")
    arrived = [BEGIN * 1000] * 4
    found = Engine(Catalogue.load()).feed(forged, arrived)
    assert [one.at.timestamp() - BEGIN for one in found] == [-3600, 0, 0, 0]


def test_of_nothing_nothing_is_found() -> None:
    assert everything().feed([]) == []


RARE = """
title = "Rare"
family = "rare"
sees = "Somebody opens what nobody else does."
scope = "address"
events = ["meter.read"]
prior = -1.0
[signals.reads]
kind = "count"
key = ["target"]
window_seconds = 3600
[signals.rare]
kind = "distinct"
key = ["address"]
given = { reads = { most = 1 } }
of = "target"
window_seconds = 3600
steps = [[0.5, 2.0]]
[[ladder]]
action = "tag"
confidence = 0.7
seconds = 600
"""


def test_a_signal_counts_only_where_those_it_is_given_say_so() -> None:
    story = Story()
    for index in range(12):
        story.add("meter.read", index, target=f"old {index}", address="digger")
        story.add("meter.read", 100 + index, target=f"old {index}", address="follower")
    found = Engine(Catalogue((read("rare", "rare.toml", RARE),))).feed(story.in_order())
    assert {finding.entity_hash for finding in found} == {hashed("address", "digger")}
    assert {finding.evidence["rare"].threshold for finding in found} == {0.5}
