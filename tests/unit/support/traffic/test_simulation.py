"""The simulated world: repeatable, in order of time, honest about who is who, and obedient to the edge."""

from collections import Counter
from collections.abc import Sequence

import pytest
from gatefold.activity.v1 import activity_pb2

from tests.support.traffic import requests
from tests.support.traffic.attackers import FAMILIES, campaigns
from tests.support.traffic.baselines import Bucket, Open, Static
from tests.support.traffic.honest import population
from tests.support.traffic.simulation import run
from tests.support.traffic.world import Actor, Answer, Behaviour, Level, World


class Watching(Open):
    """Sees everything and refuses nothing."""

    def __init__(self) -> None:
        self.seen: list[activity_pb2.Activity] = []

    def observe(self, activities: Sequence[activity_pb2.Activity], at: float) -> None:
        self.seen += activities


class Refusing(Open):
    """Answers everything alike."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.seen: list[activity_pb2.Activity] = []

    def judge(self, activity: activity_pb2.Activity, inside: Sequence[activity_pb2.Activity], at: float) -> Answer:
        return self._answer

    def observe(self, activities: Sequence[activity_pb2.Activity], at: float) -> None:
        self.seen += activities


def small(seed: int, defence: Open) -> list[tuple[str, int, int]]:
    world = World(seed, hours=0.3)
    outcome = run(world, population(world, readers=40) + campaigns(world), defence)
    return [(record.actor.name, record.requests, record.damage) for record in outcome.records]


@pytest.mark.case("edge-16")
def test_the_same_seed_is_the_same_world_and_another_is_another() -> None:
    first, again, other = Watching(), Watching(), Watching()
    assert small(5, first) == small(5, again) != small(6, other)
    assert [one.SerializeToString() for one in first.seen] == [one.SerializeToString() for one in again.seen]


@pytest.mark.case("edge-16")
def test_events_come_in_order_and_name_nobody() -> None:
    watching = Watching()
    small(7, watching)
    times = [one.time.ToNanoseconds() for one in watching.seen]
    assert times == sorted(times)
    written = b"".join(one.SerializeToString() for one in watching.seen)
    for secret in (b"victim_", b"subj_", b"dev_", b"attacker", b"honest", b"Mozilla"):
        assert secret not in written
    assert all(len(one.client_address_hash) == 16 for one in watching.seen)


@pytest.mark.case("edge-16")
def test_every_family_attacks_at_every_level_and_three_in_ten_honest_ones_look_like_it() -> None:
    world = World(8)
    attackers, honest = campaigns(world), population(world)
    assert Counter(one.level for one in attackers) == dict.fromkeys(Level, len(FAMILIES))
    assert sum(one.hard for one in honest) >= 0.3 * len(honest)
    assert not any(one.attacker for one in honest)
    left_out = campaigns(world, frozenset({"card testing"}))
    assert {one.kind for one in left_out} == FAMILIES.keys() - {"card testing"}


@pytest.mark.parametrize(
    ("answer", "status"), [(Answer.BLOCKED, 403), (Answer.THROTTLED, 429), (Answer.CHALLENGED, 401)]
)
def test_what_is_refused_gains_nothing_and_says_that_the_edge_refused_it(answer: Answer, status: int) -> None:
    world, defence = World(9, hours=1), Refusing(answer)
    client = world.server()

    def one() -> Behaviour:
        yield requests.sign_in(1.0, client, world.accounts[0], "victim", damage=1)

    (record,) = run(world, [Actor("a", "credential stuffing", one(), Level.NAIVE, solves=0.0)], defence).records
    assert (record.requests, record.refused, record.damage, record.damage_undefended) == (1, 1, 0, 1)
    (told,) = defence.seen
    assert (told.http_response_status_code, told.refused_by_edge) == (status, True)


def test_a_challenge_that_is_passed_lets_through_and_is_counted_and_a_tag_is_not() -> None:
    world = World(10, hours=1)
    client = world.home()

    def one() -> Behaviour:
        answer = yield requests.sign_in(1.0, client, world.accounts[0], "somebody")
        assert answer is Answer.SERVED

    for answer, asked in ((Answer.CHALLENGED, 1), (Answer.TAGGED, 0)):
        (record,) = run(world, [Actor("a", "reader", one(), solves=1.0)], Refusing(answer)).records
        assert (record.acted_on, record.refused, record.flagged) == (asked, 0, bool(asked))


def test_a_probing_attacker_backs_off_and_a_naive_one_does_not() -> None:
    def asked(level: Level, defence: Open) -> int:
        world = World(11, hours=2)
        kind = "credential stuffing"
        (record,) = run(world, [Actor("a", kind, FAMILIES[kind](world, level), level, solves=0.0)], defence).records
        return record.requests

    assert asked(Level.NAIVE, Refusing(Answer.BLOCKED)) == asked(Level.NAIVE, Open())
    assert asked(Level.PROBING, Refusing(Answer.BLOCKED)) < asked(Level.PROBING, Open()) / 5


def test_an_attacks_victim_is_no_attacker() -> None:
    world = World(12, hours=3)
    kind = "key leak"
    attack = Actor("a", kind, FAMILIES[kind](world, Level.NAIVE), Level.NAIVE, solves=0.0)
    outcome = run(world, [attack], Refusing(Answer.BLOCKED))
    assert outcome.bystanders_refused >= 60
    assert outcome.records[0].requests == outcome.records[0].refused


def test_baselines_refuse_the_fast_and_let_the_slow_be() -> None:
    world = World(13)
    kind = "credential stuffing"

    def refused(level: Level, defence: Open | Bucket | Static) -> int:
        return run(world, [Actor("a", kind, FAMILIES[kind](world, level), level)], defence).records[0].refused

    assert refused(Level.NAIVE, Bucket()) > 100
    assert refused(Level.NAIVE, Static()) > 100
    assert refused(Level.SLOW, Bucket()) == refused(Level.SLOW, Static()) == 0
