"""Owns looking at one shard's activities: what is decided about them, and what of them people may want to see."""

import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from google.protobuf.message import DecodeError

from services.abuse.domain.finding import Entity, Scope
from services.abuse.domain.judge import Decision, Judge, Suppressions
from services.abuse.engine.arrays import Flags
from services.abuse.engine.catalogue import Catalogue
from services.abuse.engine.columns import HASH_FIELDS
from services.abuse.engine.engine import LONGEST_REQUEST_ID, Engine, hash_of
from services.abuse.engine.packed import Activities, Activity, Batch, entity_key, split

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

    activities: Activities = field(default_factory=lambda: Activities.of(()))
    received_ms: Sequence[int] = ()
    dropped: int = 0
    lost: int = 0


def read(entries: Iterable[tuple[int, bytes | None]]) -> Read:
    """Reads entries (time, bytes) strictly: what cannot be read, or is larger than any honest activity, is dropped."""
    batches: list[Batch] = []
    received: list[int] = []
    dropped = 0
    for at, packed in entries:
        try:
            if packed is None or len(packed) > MOST_BATCH_BYTES:
                raise DecodeError("no batch of ours")
            batch = split(packed)
        except DecodeError:
            dropped += 1
            continue
        dropped += batch.dropped
        batches.append(batch)
        received += [at] * len(batch.items)
    activities = Activities.joined(batches)
    unreadable = set(activities.unreadable)
    if unreadable:
        dropped += len(unreadable)
        received = [at for row, at in enumerate(received) if row not in unreadable]
    return Read(activities, received, dropped, sum(max(0, batch.lost) for batch in batches))


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
        if not len(seen.activities):
            return Sighting()
        findings = self._engine.feed(seen.activities, seen.received_ms)
        decisions = self._judge.decide(findings, self._engine.known(findings)) if findings else []
        decided = _with_events([decision for decision in decisions if len(decision.entity) == 16], seen.activities)
        return Sighting(decided, self._refused(seen.activities), self._samples(seen))

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

    def _refused(self, activities: Activities) -> list[tuple[str, str]]:
        refused = activities.has("verdict_id") & activities.has("request_id") & _told_for_accounts(activities)
        found = [activities[row] for row in refused.nonzero()[0][:MOST_REFUSED].tolist()]
        return [(activity.request_id, activity.verdict_id) for activity in found if activity.verdict_id]

    def _samples(self, seen: Read) -> list[Sample]:
        """Picks the first activity after a moment of each account's turn that nobody can foresee or choose."""
        found: list[Sample] = []
        activities = seen.activities
        refused = activities.has("verdict_id") | (activities.numbers("refused_by_edge") != 0)
        ordinary = (~refused & ~activities.has("event_name") & _told_for_accounts(activities)).tolist()
        accounts: dict[bytes, str] = {}
        rows, packed = activities.texts(("account_id",))
        for row, own in zip(rows.tolist(), packed, strict=True):
            if not ordinary[row]:
                continue
            account = accounts.get(own)
            if account is None:
                account = accounts[own] = activities[row].account_id
            at = seen.received_ms[row]
            turn = at // _TURN_MS
            if self._sampled.get(account, -1) >= turn:
                continue
            if at % _TURN_MS < zlib.crc32(f"{account}:{turn}".encode()) % _TURN_MS:
                continue
            activity = activities[row]
            scope = Scope.ACTOR if activity.actor_hash else Scope.ADDRESS
            entity = activity.actor_hash or activity.client_address_hash
            if not account or len(entity) != 16:
                continue
            self._sampled[account] = turn
            self._sampled.move_to_end(account)
            if len(self._sampled) > MOST_ACCOUNTS:
                self._sampled.popitem(last=False)
            found.append(Sample(account, turn, scope, entity, at))
        return found


def _told_for_accounts(activities: Activities) -> Flags:
    flags: Flags = activities.numbers("reach") != Activity.REACH_PLATFORM
    return flags


def _with_events(decisions: Sequence[Decision], activities: Activities) -> list[Decided]:
    """Returns decisions with what was seen in the events that led to them."""
    about = {(decision.scope, decision.entity) for decision in decisions}
    told: dict[tuple[Scope, bytes], list[Activity]] = {}
    for scope in {scope for scope, _ in about}:
        keys = [entity_key(entity) for other, entity in about if other is scope]
        for row in (
            np.isin(activities.hashes(HASH_FIELDS[scope.value]), np.array(keys, np.uint64)).nonzero()[0].tolist()
        ):
            activity = activities[row]
            told.setdefault((scope, hash_of(activity, scope)), []).append(activity)
    return [
        Decided(decision, _entities(_events(decision, told.get((decision.scope, decision.entity), ()))))
        for decision in decisions
    ]


def _events(decision: Decision, about: Sequence[Activity]) -> list[Activity]:
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


def _entities(events: Sequence[Activity]) -> dict[Scope, bytes]:
    found: dict[Scope, bytes] = {}
    for activity in events:
        for scope in Scope:
            held = hash_of(activity, scope)
            if len(held) == 16:
                found.setdefault(scope, held)
    return found
