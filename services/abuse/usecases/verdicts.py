"""Owns the life of verdicts: written first, then told to everybody; replaced, and over in time."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from gatefold.activity.v1 import activity_pb2

from libs import ids
from libs.clock import WallClock
from libs.errors import GatefoldError
from libs.events.place import cursor_of, place_of
from libs.ids import IdSource
from libs.kill_points import KillPoints
from libs.postgres import PLATFORM, Connection, Database
from services.abuse.clients.verdict_feed import VerdictFeed
from services.abuse.domain.case import Origin
from services.abuse.domain.verdict import Verdict, decision_key, detector_of, request_key
from services.abuse.repository import cases, detectors, shards, suppressions, verdicts
from services.abuse.usecases import present
from services.abuse.usecases.case_book import CaseBook
from services.abuse.usecases.watch import Decided, Sample, Sighting

PAGE = 500
REFUSED_KEPT = timedelta(days=7)
LONGEST_REQUEST_ID = 128


class LeaseLostError(Exception):
    """Another replica reads the shard by now; what was decided is decided again there."""


class Verdicts:
    """Keeps verdicts and tells of them."""

    def __init__(
        self,
        db: Database,
        jobs: Database,
        feed: VerdictFeed,
        book: CaseBook,
        clock: WallClock,
        make: IdSource,
        kill_points: KillPoints,
    ) -> None:
        self._db = db
        self._jobs = jobs
        self._feed = feed
        self._book = book
        self._clock = clock
        self._make = make
        self._kill_points = kill_points

    async def store(self, replica: UUID, shard: int, sighting: Sighting) -> list[Verdict]:
        """Writes what came of some activities, each account's part in one transaction; returns verdicts that are new.

        Raises LeaseLostError, and then nothing of the account at hand is written. Running twice writes once.
        """
        made: list[Verdict] = []
        for account, decided in _by_account(sighting.decided).items():
            async with self._db.tenant(account, "store_verdicts") as conn:
                await _hold(conn, replica, shard)
                made += await self._add(conn, account, decided)
        for sample in sighting.samples:
            await self._audit(replica, shard, sample)
        await self._note_refused(sighting.refused)
        return made

    async def since(self, cursor: str, limit: int) -> tuple[list[activity_pb2.Verdict], str]:
        """Returns verdicts that changed after a cursor and may still count, and the next cursor.

        An empty cursor is the beginning. One of another cluster's history (after a restore) starts over.
        """
        place = place_of(cursor)
        async with self._jobs.transaction("list_verdicts", read_only=True) as conn:
            if place[0] >= await verdicts.newest_transaction(conn):
                place = (0, 0)
            size = min(limit, PAGE) if limit > 0 else PAGE
            found = await verdicts.changed_after(conn, place, self._clock.wall(), size)
        if not found:
            return [], cursor
        return [present.told(account, verdict) for account, verdict, _ in found], cursor_of(found[-1][2])

    async def announce(self) -> int:
        """Tells of one batch of changes; returns how many. Killed in between, it tells them again."""
        async with self._jobs.transaction("read_verdict_changes", read_only=True) as conn:
            found = await verdicts.untold(conn, PAGE)
        if not found:
            return 0
        self._kill_points.at("publish", "before", "announce_verdicts")
        await self._feed.tell([present.told(account, verdict) for _, account, verdict in found])
        self._kill_points.at("publish", "after", "announce_verdicts")
        async with self._jobs.transaction("note_verdict_changes") as conn:
            await verdicts.told(conn, [position for position, _, _ in found], self._clock.wall())
        return len(found)

    async def expire(self) -> int:
        """Ends one batch of verdicts whose time is over; returns how many."""
        async with self._jobs.transaction("expire_verdicts") as conn:
            return await verdicts.expire(conn, self._clock.wall(), PAGE)

    async def _add(self, conn: Connection, account: UUID, decided: Sequence[Decided]) -> list[Verdict]:
        now = self._clock.wall()
        entities = [item.decision.entity for item in decided]
        spared = await suppressions.among(conn, account, entities, now)
        demoted = await detectors.demoted(conn, account)
        wanted = []
        seen = {}
        for item in decided:
            verdict = self._verdict(item, demoted)
            kept_from = {(verdict.scope, verdict.entity, name) for name in (verdict.detector, "")}
            if not spared & kept_from:
                wanted.append(verdict)
                seen[verdict.id] = item.seen
        if not wanted:
            return []
        new = await verdicts.add(conn, account, wanted)
        made = [verdict for verdict in wanted if verdict.id in new]
        if made:
            await verdicts.supersede(conn, account, made)
            await verdicts.link(conn, account, {verdict.id: seen[verdict.id] for verdict in made})
            await self._book.enter(conn, account, made)
        return made

    def _verdict(self, item: Decided, demoted: set[str]) -> Verdict:
        decision = item.decision
        detector = detector_of(decision.rule_version)
        return Verdict(
            id=self._make.new(),
            key=decision_key(decision),
            detector=detector,
            scope=decision.scope,
            entity=decision.entity,
            action=decision.action,
            shadow=decision.shadow or detector in demoted,
            reasons=decision.reasons,
            confidence=decision.confidence,
            evidence=decision.evidence,
            rule_version=decision.rule_version,
            strikes=decision.strikes,
            request_id=decision.request_id[:LONGEST_REQUEST_ID],
            decided_at=decision.at,
            expires_at=decision.at + timedelta(seconds=decision.seconds),
        )

    async def _audit(self, replica: UUID, shard: int, sample: Sample) -> None:
        account = _account(sample.account)
        if account is None:
            return
        async with self._db.tenant(account, "open_audit") as conn:
            await _hold(conn, replica, shard)
            if await verdicts.in_force(conn, account, sample.scope, sample.entity):
                return
            case = replace(
                self._book.blank(sample.scope, sample.entity, Origin.AUDIT),
                audit_turn=sample.turn,
                opened_at=datetime.fromtimestamp(sample.at_ms / 1000, UTC),
            )
            if await cases.add(conn, account, case):
                await self._book.write(conn, account, case, "opened", detail=Origin.AUDIT.value)

    async def _note_refused(self, refused: Sequence[tuple[str, str]]) -> None:
        named: dict[UUID, UUID] = {}
        for request, text in refused:
            verdict = _verdict_id(text)
            if verdict is not None:
                named[request_key(request)] = verdict
        if not named:
            return
        async with self._jobs.transaction("find_refusing", read_only=True) as conn:
            owners = await verdicts.owners(conn, list(named.values()))
        known = {key: (owners[verdict], verdict) for key, verdict in named.items() if verdict in owners}
        if known:
            async with self._db.transaction("note_refused") as conn:
                await verdicts.add_refused(conn, known, self._clock.wall() + REFUSED_KEPT)


async def _hold(conn: Connection, replica: UUID, shard: int) -> None:
    if not await shards.holds(conn, replica, shard):
        raise LeaseLostError(f"shard {shard}")


def _by_account(decided: Sequence[Decided]) -> dict[UUID, list[Decided]]:
    found: dict[UUID, list[Decided]] = {}
    for item in decided:
        account = _account(item.decision.account)
        if account is not None:
            found.setdefault(account, []).append(item)
    return found


def _account(text: str | None) -> UUID | None:
    """Returns whose something is; None for a text that names nobody, which only a forged activity has."""
    if not text:
        return PLATFORM
    try:
        return ids.decode("acct", text)
    except GatefoldError:
        return None


def _verdict_id(text: str) -> UUID | None:
    try:
        return ids.decode("verdict", text)
    except GatefoldError:
        return None
