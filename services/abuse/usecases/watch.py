"""Owns looking at one shard's activities: what is decided about them, and what of them people may want to see."""

import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gatefold.activity.v1 import activity_pb2
from google.protobuf.message import DecodeError

from services.abuse.domain.finding import Entity, Scope
from services.abuse.domain.judge import Decision, Judge, Suppressions
from services.abuse.engine.catalogue import Catalogue
from services.abuse.engine.engine import LONGEST_REQUEST_ID, Engine, hash_of

MOST_ACTIVITY_BYTES = 2_048
"""An activity has hashes and short names; one that is larger was made to do harm."""
MOST_BATCH_BYTES = 4 * 1024 * 1024
AUDITS_A_DAY = 3
MOST_ACCOUNTS = 50_000
MOST_REFUSED = 200
"""Requests that are noted of each batch of entries, for appeals: an attacker's refusals are without number."""
_TURN_MS = 86_400_000 // AUDITS_A_DAY
_LENGTHS = struct.Struct(">QQ")


@dataclass(frozen=True)
class Decided:
    """A decision, and the entities that were seen in the event that led to it."""

    decision: Decision
    seen: Mapping[Scope, bytes]


@dataclass(frozen=True)
class Sample:
    """Somebody in whom nothing was found, picked at random for people to look at."""

    account: str
    turn: int
    scope: Scope
    entity: bytes
    at_ms: int


@dataclass(frozen=True)
class Sighting:
    """What came of some activities."""

    decided: list[Decided] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    """Request ids with the verdicts, `verdict_…`, that refused them."""
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True)
class Read:
    """Activities of some entries with when each was received, and how many entries or activities were no good."""

    activities: list[activity_pb2.Activity] = field(default_factory=list)
    received_ms: list[int] = field(default_factory=list)
    dropped: int = 0
    lost: int = 0


def read(entries: Iterable[tuple[int, bytes | None]]) -> Read:
    """Reads entries (time, bytes) strictly: what cannot be read, or is larger than any honest activity, is dropped."""
    activities: list[activity_pb2.Activity] = []
    received: list[int] = []
    dropped = lost = 0
    for at, packed in entries:
        if packed is None or len(packed) > MOST_BATCH_BYTES:
            dropped += 1
            continue
        try:
            batch = activity_pb2.ActivityBatch.FromString(packed)
        except (DecodeError, ValueError):
            dropped += 1
            continue
        good = [activity for activity in batch.activities if _is_good(activity)]
        dropped += len(batch.activities) - len(good)
        lost += max(0, batch.lost)
        activities += good
        received += [at] * len(good)
    return Read(activities, received, dropped, lost)


def _is_good(activity: activity_pb2.Activity) -> bool:
    return activity.ByteSize() <= MOST_ACTIVITY_BYTES


class Watch:
    """The engine and the judge of one shard. Not safe for several threads at once; it may be used from any one."""

    def __init__(self, catalogue: Catalogue, suppressions: Suppressions) -> None:
        self._catalogue = catalogue
        self._suppressions = suppressions
        self._engine, self._judge = Engine(catalogue), Judge(catalogue.detectors, suppressions)
        self._sampled: OrderedDict[str, int] = OrderedDict()

    def take(self, seen: Read, forgiven: Sequence[Entity] = ()) -> Sighting:
        """Looks at activities in their order; first it forgets what was forgiven."""
        for entity in forgiven:
            self._judge.forgive(entity)
        if not seen.activities:
            return Sighting()
        findings = self._engine.feed(seen.activities, seen.received_ms)
        decisions = self._judge.decide(findings, self._engine.known(findings)) if findings else []
        decided = _with_events([decision for decision in decisions if len(decision.entity) == 16], seen.activities)
        refused = [
            (activity.request_id, activity.verdict_id)
            for activity in seen.activities
            if activity.verdict_id and activity.request_id and activity.reach != activity_pb2.Activity.REACH_PLATFORM
        ]
        return Sighting(decided, refused[:MOST_REFUSED], self._samples(seen))

    def snapshot(self) -> bytes:
        """Returns all that is known."""
        engine, judge = self._engine.snapshot(), self._judge.snapshot()
        return zlib.compress(_LENGTHS.pack(len(engine), len(judge)) + engine + judge, 1)

    def restore(self, packed: bytes) -> bool:
        """Takes up where a snapshot was made; returns False, and knows nothing, for one of other detectors."""
        try:
            plain = zlib.decompress(packed)
            engine, judge = _LENGTHS.unpack_from(plain)
            if len(plain) != _LENGTHS.size + engine + judge:
                raise ValueError("a snapshot of another length")
            self._engine.restore(plain[_LENGTHS.size : _LENGTHS.size + engine])
            self._judge.restore(plain[_LENGTHS.size + engine :])
        except (ValueError, zlib.error, struct.error):
            self._engine = Engine(self._catalogue)
            self._judge = Judge(self._catalogue.detectors, self._suppressions)
            return False
        return True

    def _samples(self, seen: Read) -> list[Sample]:
        """Picks the first activity after a moment of each account's turn that nobody can foresee or choose."""
        found: list[Sample] = []
        for activity, at in zip(seen.activities, seen.received_ms, strict=True):
            account = activity.account_id
            if activity.reach == activity_pb2.Activity.REACH_PLATFORM:
                continue
            if not account or activity.verdict_id or activity.refused_by_edge or activity.event_name:
                continue
            turn = at // _TURN_MS
            if self._sampled.get(account, -1) >= turn:
                continue
            if at % _TURN_MS < zlib.crc32(f"{account}:{turn}".encode()) % _TURN_MS:
                continue
            scope = Scope.ACTOR if activity.actor_hash else Scope.ADDRESS
            entity = activity.actor_hash or activity.client_address_hash
            if len(entity) != 16:
                continue
            self._sampled[account] = turn
            self._sampled.move_to_end(account)
            if len(self._sampled) > MOST_ACCOUNTS:
                self._sampled.popitem(last=False)
            found.append(Sample(account, turn, scope, entity, at))
        return found


def _with_events(decisions: Sequence[Decision], activities: Sequence[activity_pb2.Activity]) -> list[Decided]:
    """Returns decisions with what was seen in the events that led to them."""
    about = {(decision.scope, decision.entity) for decision in decisions}
    scopes = {scope for scope, _ in about}
    told: dict[tuple[Scope, bytes], list[activity_pb2.Activity]] = {}
    for activity in activities if about else ():
        for scope in scopes:
            key = scope, hash_of(activity, scope)
            if key in about:
                told.setdefault(key, []).append(activity)
    return [
        Decided(decision, _entities(_events(decision, told.get((decision.scope, decision.entity), ()))))
        for decision in decisions
    ]


def _events(decision: Decision, about: Sequence[activity_pb2.Activity]) -> list[activity_pb2.Activity]:
    """Returns, of the events about an entity, what led to a decision: all that one request became.

    The edge tells of a request and a service of what happened in it, and only one of them says all. Records of a
    publisher's own have no request: of them it is the one of that moment.
    """
    own = [one for one in about if decision.account in (None, one.account_id)]
    if decision.request_id:
        found = [one for one in own if one.request_id[:LONGEST_REQUEST_ID] == decision.request_id]
        # What happened inside names what it was about; the edge only what stood in the path.
        return sorted(found, key=lambda one: not one.event_name)
    at = round(decision.at.timestamp() * 1000)
    found = [one for one in own if not one.request_id]
    return [one for one in found if one.time.seconds * 1000 + one.time.nanos // 1_000_000 == at][-1:] or found[-1:]


def _entities(events: Sequence[activity_pb2.Activity]) -> dict[Scope, bytes]:
    found: dict[Scope, bytes] = {}
    for activity in events:
        for scope in Scope:
            held = hash_of(activity, scope)
            if len(held) == 16:
                found.setdefault(scope, held)
    return found
