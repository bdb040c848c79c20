"""An attack on many publishers is seen whole by one shard, and nothing is counted twice for it."""

from collections.abc import Iterable, Sequence
from functools import cache

import pytest
from gatefold.activity.v1 import activity_pb2

from libs.activity import SHARDS, Routing, shard_of
from services.abuse.domain.finding import Entity, Finding, Scope
from services.abuse.engine.catalogue import Catalogue
from services.abuse.engine.engine import Engine
from tests.support.activities import Story, hashed

pytestmark = pytest.mark.case("edge-15")

ATTACKER = hashed("address", "attacker")
PLATFORM, ACCOUNT = activity_pb2.Activity.REACH_PLATFORM, activity_pb2.Activity.REACH_ACCOUNT
DAY = 86_400


@cache
def catalogue() -> Catalogue:
    return Catalogue.load()


def attack(accounts: int, each: int = 1) -> list[activity_pb2.Activity]:
    """Returns wrong passwords from one address, spread over accounts."""
    story = Story()
    for index in range(accounts * each):
        account = f"acct_{index % accounts}"
        story.sign_in(index, f"person {index}", account=account, address="attacker", network="around it")
    return story.events


def heard(told: Iterable[tuple[int, activity_pb2.Activity]]) -> list[tuple[int, Finding]]:
    """Returns what each shard's engine says, at a time of its own."""
    sharded: dict[int, list[activity_pb2.Activity]] = {shard: [] for shard in range(SHARDS)}
    for shard, one in told:
        sharded[shard].append(one)
    return [(shard, found) for shard, events in sharded.items() for found in Engine(catalogue()).feed(events)]


def sure(found: Sequence[tuple[int, Finding]]) -> set[tuple[int, str | None, str]]:
    return {
        (shard, one.account, one.detector)
        for shard, one in found
        if one.entity_hash == ATTACKER and one.confidence > 0.9
    }


def test_an_attack_that_is_thin_everywhere_is_seen_where_it_comes_from() -> None:
    routing = Routing()
    # One try at each of sixteen publishers: no shard of accounts sees enough of it.
    assert not sure(heard((shard_of(one), one) for one in attack(16)))
    found = sure(heard(place for one in attack(16) for place in routing.places(one)))
    around = {shard for shard, _, _ in found}
    assert len(around) == 1
    assert {(account, detector) for _, account, detector in found} >= {(None, "stuffing-address")}


def test_one_account_is_judged_by_its_own_shard_alone_and_the_platform_by_the_other() -> None:
    routing = Routing()
    told = [place for one in attack(1, 40) for place in routing.places(one)]
    home = shard_of(attack(1)[0])
    assert {one.reach for _, one in told} == {ACCOUNT, PLATFORM}
    found = heard(told)
    assert {shard for shard, one in found if one.account is not None} <= {home}
    assert home not in {shard for shard, one in found if one.account is None}
    assert any(one.account is None for _, one in found)


def test_both_together_say_what_one_shard_that_is_told_everything_says() -> None:
    routing, events = Routing(), attack(3, 20)
    whole = Engine(catalogue()).feed(attack(3, 20))
    parts = [found for _, found in heard(place for one in events for place in routing.places(one))]

    def said(found: Sequence[Finding]) -> set[tuple[str, str | None, float, bytes]]:
        return {(one.detector, one.account, one.at.timestamp(), one.entity_hash) for one in found if not one.account}

    assert said(parts) == said(whole)


def test_whoever_is_met_at_an_address_is_known_to_whoever_judges_it() -> None:
    routing, engine = Routing(), Engine(catalogue())
    around = routing.places(attack(1)[0])[-1][0]
    for day in range(4):
        story = Story()
        for index in range(10):
            story.read(
                day * DAY + index,
                "page",
                account="acct_0",
                actor=f"reader {index}",
                address="attacker",
                network="around it",
            )
        events = [one for event in story.events for shard, one in routing.places(event) if shard == around]
        # They are told of for that alone: requests are judged where their account is.
        assert {one.reach for one in events} == {PLATFORM}
        assert engine.feed(events) == []
    entity = Entity(Scope.ADDRESS, ATTACKER)
    finding = next(one for one in Engine(catalogue()).feed(attack(1, 40)) if one.entity == entity)
    assert engine.known([finding])[entity] >= 8


def test_requests_told_of_for_the_platform_feed_no_detector() -> None:
    story = Story()
    for index in range(3_000):
        story.read(index / 10, f"page {index}", account="acct_0", address="attacker", status=404)
    assert Engine(catalogue()).feed(story.events)
    for one in story.events:
        one.reach = PLATFORM
    assert Engine(catalogue()).feed(story.events) == []
