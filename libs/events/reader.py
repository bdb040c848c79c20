"""Owns a consumer group's side of the streams: reads, acknowledges, and takes over what dead replicas left."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import redis.asyncio
from gatefold.events.v1 import envelope_pb2
from google.protobuf.message import DecodeError
from redis.exceptions import ResponseError

from libs.errors import GatefoldError, Kind
from libs.events.pause import pause
from libs.events.stream import FIELD, stream_key, unpack
from libs.kill_points import KillPoints
from libs.telemetry import Telemetry

READ_ENTRIES = 8
# Below the client's own timeout, which would take the wait for an outage.
BLOCK_MILLISECONDS = 1_000
_CLAIM_ENTRIES = 64
_FORGOTTEN_AFTER_MILLISECONDS = 3_600_000
_LOOK_SECONDS = 60.0

Entry = tuple[str, bytes]
Receive = Callable[[str, Sequence[envelope_pb2.Envelope], Callable[[], None]], Awaitable[None]]
"""Takes a producer's events and calls back when all of them are settled."""


class StreamReader:
    """Reads producers' streams as one member (`name`) of the service's group.

    An entry is acknowledged when all its events are settled. Entries that a member leaves unsettled for
    `idle_seconds` are taken over by another.
    """

    def __init__(
        self,
        redis: redis.asyncio.Redis,
        service: str,
        name: str,
        producers: Sequence[str],
        receive: Receive,
        *,
        lost: Callable[[], None],
        back_off: Callable[[int], float],
        kill_points: KillPoints,
        telemetry: Telemetry,
        claim_seconds: float,
        idle_seconds: float,
    ) -> None:
        self._redis = redis
        self._group = service
        self._name = name
        self._producers = {stream_key(producer): producer for producer in producers}
        self._receive = receive
        self._lost = lost
        self._back_off = back_off
        self._kill_points = kill_points
        self._log = telemetry.logger("libs.events")
        self._unreadable = telemetry.counter("events_unreadable", "Entries and envelopes that could not be read.")
        self._failures = telemetry.counter("events_stream_failures", "Times that the streams were away or lost.")
        self._claim_seconds = claim_seconds
        self._idle_milliseconds = int(idle_seconds * 1_000)
        self._held: set[Entry] = set()
        self._settled: list[Entry] = []
        self._any_settled = asyncio.Event()
        self._grouped = False

    async def read(self, stop: asyncio.Event) -> None:
        """Reads new entries until `stop` is set; cancelling it then ends the wait for news."""
        streams: dict[Any, Any] = dict.fromkeys(self._producers, ">")

        async def once() -> None:
            if not self._grouped:
                await self._make_groups()
            answer: Any = await self._redis.xreadgroup(
                self._group, self._name, streams, count=READ_ENTRIES, block=BLOCK_MILLISECONDS
            )
            for key, entries in answer or ():
                await self._take(key.decode(), entries)

        while not stop.is_set():
            await self._through_outages(stop, once)

    async def claim(self, stop: asyncio.Event) -> None:
        """Now and then takes over what dead members left, until `stop` is set."""

        async def once() -> None:
            for key in self._producers:
                await self._keep_own(key)
                await self._take_over(key)
                await self._forget_members(key)

        while not stop.is_set():
            await pause(stop, self._claim_seconds)
            await self._through_outages(stop, once)

    async def acknowledge(self, stop: asyncio.Event) -> None:
        """Acknowledges settled entries until `stop` is set."""
        while not stop.is_set():
            await pause(stop, _LOOK_SECONDS, self._any_settled)
            await self._through_outages(stop, self.acknowledge_settled)

    async def acknowledge_settled(self) -> None:
        """Acknowledges what is settled now."""
        self._any_settled.clear()
        entries, self._settled = self._settled, []
        if not entries:
            return
        by_stream: dict[str, list[bytes]] = {}
        for key, entry in entries:
            by_stream.setdefault(key, []).append(entry)
        self._kill_points.at("ack", "before", "consume")
        try:
            for key, ids in by_stream.items():
                await self._redis.xack(key, self._group, *ids)
        except BaseException:
            # Cancelled, too: the last acknowledgement of a run sends what this one did not.
            self._settled = [*entries, *self._settled]
            self._any_settled.set()
            raise
        self._kill_points.at("ack", "after", "consume")
        self._held.difference_update(entries)

    async def _through_outages(self, stop: asyncio.Event, step: Callable[[], Awaitable[None]]) -> None:
        """Runs a step; while the store is away or has lost the streams, waits, and has everything made good.

        Asks for `stop` itself, since a cancellation may get lost on its way (`asyncio.wait_for` before Python 3.12).
        """
        failures = 0
        while not stop.is_set():
            try:
                await step()
            except GatefoldError as error:
                if error.kind is not Kind.UNAVAILABLE:
                    raise
                self._log.warning("the event streams are away", extra={"reason": error.reason})
            except ResponseError as error:
                if not str(error).startswith(("NOGROUP", "UNBLOCKED")):
                    raise
                self._log.warning("the event streams were lost")
            else:
                return
            self._failures.inc()
            self._grouped = False
            failures += 1
            await pause(stop, self._back_off(failures))

    async def _make_groups(self) -> None:
        for key in self._producers:
            try:
                # From the beginning: what the stream still holds and was applied is skipped by its sequence.
                await self._redis.xgroup_create(key, self._group, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
        self._grouped = True
        self._lost()

    async def _take(self, key: str, entries: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> None:
        for entry, fields in entries:
            held = (key, entry)
            try:
                envelopes = unpack(fields[FIELD])
            except (KeyError, DecodeError):
                self._unreadable.inc()
                self._log.error("a stream entry cannot be read", extra={"stream": key, "entry": entry.decode()})
                envelopes = []
            self._held.add(held)
            await self._receive(self._producers[key], envelopes, lambda held=held: self._settle(held))  # type: ignore[misc]

    def _settle(self, entry: Entry) -> None:
        self._settled.append(entry)
        self._any_settled.set()

    async def _keep_own(self, key: str) -> None:
        """Renews the claim on what this member still works on, so that nobody else takes it over."""
        own: list[Any] = [entry for stream, entry in self._held if stream == key]
        if own:
            await self._redis.xclaim(key, self._group, self._name, min_idle_time=0, message_ids=own, justid=True)

    async def _take_over(self, key: str) -> None:
        start: Any = "0-0"
        while True:
            start, entries, _ = await self._redis.xautoclaim(
                key, self._group, self._name, self._idle_milliseconds, start_id=start, count=_CLAIM_ENTRIES
            )
            await self._take(key, [(entry, fields) for entry, fields in entries if (key, entry) not in self._held])
            if start == b"0-0":
                return

    async def _forget_members(self, key: str) -> None:
        """Removes members that went long ago and left nothing."""
        for member in await self._redis.xinfo_consumers(key, self._group):
            gone = member["idle"] > _FORGOTTEN_AFTER_MILLISECONDS and not member["pending"]
            if gone and member["name"] != self._name.encode():
                await self._redis.xgroup_delconsumer(key, self._group, member["name"])
