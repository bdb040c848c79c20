"""Owns letting everybody act in the order of time, with a defence in between that sees what an edge would tell it."""

import heapq
import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from gatefold.activity.v1 import activity_pb2

from libs.activity import Pseudonyms, network_of
from tests.support.traffic.world import Actor, Answer, Inner, Level, Request, World

BEGINS = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
"""A Monday."""
TICK_SECONDS = 10.0
TICK_EVENTS = 64
"""How often the defence is told, and after how many events at the latest; what it decides holds from then on."""
PAST_EVENTS = 4096


class Defence(Protocol):
    """What stands between."""

    def judge(self, activity: activity_pb2.Activity, inside: Sequence[activity_pb2.Activity], at: float) -> Answer:
        """Says what is done with a request before it is served: at the edge, and by the services that know what it is
        about, whose events `inside` are.
        """

    def observe(self, activities: Sequence[activity_pb2.Activity], at: float) -> None:
        """Takes what happened since it was told last."""


@dataclass(slots=True)
class Record:
    """What became of one actor's requests."""

    actor: Actor
    requests: int = 0
    acted_on: int = 0
    """Challenged (passed or not), throttled or blocked."""
    refused: int = 0
    blocked: int = 0
    began_at: float = -1.0
    first_acted_at: float = -1.0
    damage_before: int = 0
    """What it had gained by then."""
    damage: int = 0
    """What it gained."""
    damage_undefended: int = 0
    """What it would have gained from the same requests."""
    changes: int = 0
    """How often it was let through after it had been refused, or the other way round."""
    last: Answer = Answer.SERVED

    @property
    def flagged(self) -> bool:
        """Whether anything was asked of it or refused to it."""
        return self.acted_on > 0


@dataclass
class Outcome:
    """A whole run."""

    world: World
    records: list[Record]
    events: int = 0
    bystanders_refused: int = 0
    """Requests of attacks' victims that were refused."""
    uses: dict[bytes, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    """By hash, how many requests of honest ones and of attackers had it."""

    def note(self, told: activity_pb2.Activity, *, attacker: bool) -> None:
        """Counts whose the entities of an event are."""
        for entity in (
            told.client_address_hash,
            told.client_network_hash,
            told.actor_hash,
            told.target_hash,
            told.device_hash,
            told.session_hash,
            told.user_agent_hash,
        ):
            if entity:
                self.uses[entity][attacker] += 1


class Teller:
    """Writes what happened as the edge and the services do."""

    def __init__(self) -> None:
        self._pseudonyms = Pseudonyms("a pepper of the simulation")
        self._hashes: dict[tuple[str, str], bytes] = {}

    def hashed(self, kind: str, text: str) -> bytes:
        """Returns a keyed hash, from memory where it was asked for before."""
        found = self._hashes.get((kind, text))
        if found is None:
            found = self._hashes[kind, text] = self._pseudonyms.of(kind, text)
        return found

    def activity(self, request: Request, at: float, number: int) -> activity_pb2.Activity:
        """Returns the edge's event of a request that is served."""
        client = request.client
        when = BEGINS + timedelta(seconds=at)
        told = activity_pb2.Activity(
            account_id=request.account,
            http_request_method=request.method,
            http_route=request.route,
            http_response_status_code=request.status,
            client_address_hash=self.hashed("address", client.address),
            client_network_hash=self.hashed("network", network_of(client.address)),
            user_agent_hash=self.hashed("user_agent", client.agent),
            caller_kind=request.caller_kind,
            actor_hash=self.hashed("actor", request.actor),
            duration_micros=2_000,
            problem_reason=request.reason,
            request_id=f"{number:032x}",
            target_hash=self.hashed("target", request.target),
            device_hash=self.hashed("device", client.device),
            session_hash=self.hashed("session", request.session),
            geo_country_iso_code=client.place.country,
            client_asn=client.place.asn,
            geo_location_lat=client.place.latitude,
            geo_location_lon=client.place.longitude,
            http_response_body_size=request.response_bytes,
            verified_crawler=request.verified_crawler,
        )
        told.time.FromDatetime(when)
        return told

    def inner(self, outer: activity_pb2.Activity, event: Inner) -> activity_pb2.Activity:
        """Returns what a service tells of what happened inside."""
        told = activity_pb2.Activity()
        told.CopyFrom(outer)
        told.event_name = event.event
        told.target_hash = self.hashed("target", event.target)
        told.http_response_status_code = event.status
        told.problem_reason = event.reason
        told.amount_minor = event.amount_minor
        return told


_REFUSALS = {
    Answer.CHALLENGED: (401, "challenge_required"),
    Answer.THROTTLED: (429, "rate_limited"),
    Answer.BLOCKED: (403, "firewall_blocked"),
}


def run(world: World, actors: Sequence[Actor], defence: Defence) -> Outcome:
    """Lets everybody act until the world's time is over, and returns what became of them."""
    teller = Teller()
    records = [Record(actor) for actor in actors]
    queue: list[tuple[float, int, Record, Request]] = []
    turn = itertools.count()
    for record in records:
        first = next(record.actor.behaviour, None)
        if first is not None:
            heapq.heappush(queue, (first.at, next(turn), record, first))
    held: list[activity_pb2.Activity] = []
    outcome, told_until = Outcome(world, records), float("-inf")
    while queue:
        at, number, record, request = heapq.heappop(queue)
        if at >= world.seconds:
            break
        # Nobody is judged in the days before, so that they are told in large parts.
        past = at < 0 and len(held) < PAST_EVENTS
        if not past and (len(held) >= TICK_EVENTS or at >= told_until + TICK_SECONDS):
            defence.observe(held, at)
            outcome.events += len(held)
            held, told_until = [], at
        activity = teller.activity(request, at, number)
        inside = [teller.inner(activity, event) for event in request.inner]
        if at < 0:
            # Before anybody looked: it is known, and counted for nobody.
            held += [activity, *inside]
            _push(queue, record, Answer.SERVED, at, turn)
            continue
        answer = defence.judge(activity, inside, at)
        acted, solved = answer not in (Answer.SERVED, Answer.TAGGED), False
        if answer is Answer.CHALLENGED:
            solved = world.chance.random() < record.actor.solves
        if solved or answer is Answer.TAGGED:
            answer = Answer.SERVED
        if request.bystander:
            outcome.bystanders_refused += answer is not Answer.SERVED
        else:
            _note(record, request, answer, acted=acted)
            for told in (activity, *inside):
                outcome.note(told, attacker=record.actor.attacker)
        if answer is Answer.SERVED:
            held.append(activity)
            held += inside
        else:
            activity.http_response_status_code, activity.problem_reason = _REFUSALS[answer]
            activity.refused_by_edge = True
            held.append(activity)
        _push(queue, record, answer, at, turn)
    defence.observe(held, world.seconds)
    outcome.events += len(held)
    return outcome


def _push(
    queue: list[tuple[float, int, Record, Request]],
    record: Record,
    answer: Answer,
    at: float,
    turn: "itertools.count[int]",
) -> None:
    try:
        following = record.actor.behaviour.send(answer)
    except StopIteration:
        return
    heapq.heappush(queue, (max(at, following.at), next(turn), record, following))


def _note(record: Record, request: Request, answer: Answer, *, acted: bool) -> None:
    if record.began_at < 0:
        record.began_at = request.at
    record.requests += 1
    record.damage_undefended += request.damage
    if acted:
        record.acted_on += 1
        if record.first_acted_at < 0:
            record.first_acted_at, record.damage_before = request.at, record.damage
    if (answer is Answer.SERVED) != (record.last is Answer.SERVED):
        record.changes += 1
    record.last = answer
    if answer is Answer.SERVED:
        record.damage += request.damage
        return
    record.refused += 1
    record.blocked += answer is Answer.BLOCKED


__all__ = ["BEGINS", "Defence", "Level", "Outcome", "Record", "run"]
