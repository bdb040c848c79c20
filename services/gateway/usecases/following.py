"""Owns which version this gateway enforces: taken whole or refused whole, from wherever it comes."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from gatefold.gateway.v1 import bundle_pb2, firewall_pb2

from libs.clock import WallClock
from libs.errors import GatefoldError
from libs.telemetry import Telemetry
from services.gateway.domain.bundle import Bundle
from services.gateway.domain.register import Identity
from services.gateway.usecases import packing, present
from services.gateway.usecases.packing import EntrySets, Opened

DATABASE, STREAM, FILE = "database", "stream", "file"

Swap = Callable[[], None]
Prepare = Callable[[Bundle], Swap]
"""Compiles a bundle beside what is enforced and tests it; raises `invalid` for one that cannot be enforced. What it
returns puts it in place by assigning references. Called in a thread, the swap in the event loop."""
Fetch = Callable[[Identity, Collection[bytes]], Awaitable[bundle_pb2.Snapshot | None]]
"""Asks the database for the newest version; None when it is the one that is held."""
Save = Callable[[bytes], None]
"""Keeps the last known good; called in a thread."""


@dataclass(frozen=True)
class Refused:
    """A version that was not taken."""

    version: int
    reason: str


class Following:
    """The version that is enforced here.

    The database is right whatever it says: after it was put back to a former state, that state is enforced. The stream
    is believed where it is ahead within the same history, and a file where there is nothing else.
    """

    def __init__(
        self,
        fetch: Fetch | None,
        prepare: Prepare,
        save: Save | None,
        *,
        clock: WallClock,
        telemetry: Telemetry,
    ) -> None:
        """Without `fetch` there is no database to ask, and without `save` nothing is kept for the next start."""
        self._fetch = fetch
        self._prepare = prepare
        self._save = save
        self._clock = clock
        self._sets = EntrySets()
        self._kept: tuple[bytes, ...] = ()
        self._taking = asyncio.Lock()
        self.held = Identity()
        self.source = ""
        self.since: datetime | None = None
        self.refused: Refused | None = None
        self._hopeless: Identity | None = None
        self._log = telemetry.logger("bundles")
        self._version = telemetry.gauge("gateway_bundle_version", "Version of rules and limits that is enforced.")
        self._refusals = telemetry.counter(
            "gateway_bundles_refused", "Versions that could not be enforced.", ("source",)
        )

    @property
    def digests(self) -> Collection[bytes]:
        """Which entries are held."""
        return self._sets.held()

    async def ask(self) -> bool:
        """Asks the database, if there is one, and takes what is not held; answers whether there is one that knows.

        Raises `unavailable`.
        """
        if self._fetch is None:
            return False
        snapshot = await self._fetch(self.held, self.digests)
        if snapshot is not None:
            await self.take(snapshot, DATABASE)
        return True

    async def take(self, snapshot: bundle_pb2.Snapshot, source: str) -> bool:
        """Takes a version and answers whether it did; what cannot be enforced is counted and told of, once."""
        async with self._taking:
            if not self._is_news(snapshot, source):
                return False
            try:
                opened = await asyncio.to_thread(packing.opened, snapshot, self._sets)
            except GatefoldError as error:
                self._refuse(snapshot, source, error)
                return False
            try:
                swap = await asyncio.to_thread(self._prepare, opened.bundle)
            except Exception as error:  # noqa: BLE001 — whatever is wrong with a version, the one before it stays
                self._refuse(snapshot, source, error)
                # What is whole and refused will be refused again; what was damaged may come whole the next time.
                self._hopeless = opened.identity
                return False
            swap()
            self.held, self.source, self.since = opened.identity, source, self._clock.wall()
            self.refused = self._hopeless = None
            self._kept = opened.digests
            self._sets.keep(self._kept)
            self._version.set(opened.identity.version)
            self._log.info("a version is enforced", extra={"version": opened.identity.version, "source": source})
            if self._save is not None and source != FILE:
                await self._keep(snapshot, opened)
            return True

    def status(self, name: str, software: str) -> firewall_pb2.Gateway:
        """Returns what this gateway says of itself."""
        return firewall_pb2.Gateway(
            name=name,
            version=self.held.version,
            digest=self.held.digest.hex(),
            source=self.source,
            since=present.timestamp(self.since),
            refused_version=self.refused.version if self.refused else 0,
            refused_reason=self.refused.reason if self.refused else "",
            seen_at=present.timestamp(self._clock.wall()),
            software=software,
        )

    def _is_news(self, snapshot: bundle_pb2.Snapshot, source: str) -> bool:
        hopeless = self._hopeless
        if hopeless is not None and (snapshot.version, snapshot.digest) == (hopeless.version, hopeless.digest):
            return False
        if self.held.version == 0 or self.held.lineage is None:
            return True
        same_history = snapshot.lineage == self.held.lineage.bytes
        if source == DATABASE:
            return not same_history or (snapshot.version, snapshot.digest) != (self.held.version, self.held.digest)
        return same_history and snapshot.version > self.held.version

    def _refuse(self, snapshot: bundle_pb2.Snapshot, source: str, error: Exception) -> None:
        reason = error.reason if isinstance(error, GatefoldError) else type(error).__name__
        self.refused = Refused(snapshot.version, reason)
        self._sets.keep(self._kept)
        self._refusals.labels(source).inc()
        self._log.error(
            "a version was refused; the one before it stays",
            extra={"version": snapshot.version, "held": self.held.version, "source": source, "reason": reason},
            exc_info=None if isinstance(error, GatefoldError) else error,
        )

    async def _keep(self, snapshot: bundle_pb2.Snapshot, opened: Opened) -> None:
        whole = bundle_pb2.Snapshot()
        whole.CopyFrom(snapshot)
        del whole.sets[:]
        for digest in dict.fromkeys(opened.digests):
            whole.sets.add(digest=digest, packed=self._sets.packed(digest))
        assert self._save is not None
        try:
            await asyncio.to_thread(self._save, whole.SerializeToString())
        except OSError as error:
            self._log.warning("the last known good cannot be kept", extra={"why": type(error).__name__})
