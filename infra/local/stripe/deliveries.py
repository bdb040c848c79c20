"""Owns webhooks on their way: signed, sent until they are taken (2xx), with the faults that were asked for."""

import asyncio
import hashlib
import hmac
import json
import sqlite3
from collections.abc import Sequence

import aiohttp

from infra.local.stripe import webhook_endpoints
from infra.local.stripe.engine import hidden
from infra.local.stripe.faults import ON_WEBHOOKS, Faults
from infra.local.stripe.problems import Json
from infra.local.stripe.store import Scope, Store
from libs.clock import WallClock

_AT_ONCE = 16
_ANSWER_SECONDS = 10.0
_GIVEN_UP_SECONDS = 3 * 24 * 3600
_STEP_SECONDS = 0.3
_IDLE_SECONDS = 5.0


def signature(secrets: Sequence[str], timestamp: int, payload: bytes) -> str:
    """Returns a `Stripe-Signature` header (docs.stripe.com/webhooks/signature)."""
    signed = f"{timestamp}.".encode() + payload
    marks = (hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets)
    return ",".join([f"t={timestamp}", *(f"v1={mark}" for mark in marks)])


class Deliveries:
    """The webhooks of all accounts."""

    def __init__(
        self,
        store: Store,
        clock: WallClock,
        faults: Faults,
        *,
        first_retry_seconds: float,
        longest_retry_seconds: float,
    ) -> None:
        self._store = store
        self._clock = clock
        self._faults = faults
        self._first_retry_seconds = first_retry_seconds
        self._longest_retry_seconds = longest_retry_seconds
        self._wake = asyncio.Event()

    def add(self, scope: Scope, event: Json) -> int:
        """Plans the delivery of an event to every endpoint that wants it, in the event's transaction; counts them."""
        endpoints = [
            endpoint
            for endpoint in self._store.all(scope, "webhook_endpoint")
            if webhook_endpoints.wants(endpoint, event["type"])
        ]
        for endpoint in endpoints:
            self._plan(scope, endpoint, event)
        self._wake.set()
        return len(endpoints)

    def _plan(self, scope: Scope, endpoint: Json, event: Json) -> None:
        now = self._clock.wall().timestamp()
        copies, due_at = 1, now
        taken = self._faults.take(ON_WEBHOOKS, scope.account, "*", event["type"])
        if taken is not None:
            fault, left = taken
            if fault.kind == "webhook_drop":
                return
            if fault.kind == "webhook_duplicate":
                copies = 2
            elif fault.kind == "webhook_delay":
                due_at += fault.seconds
            else:  # the first of n waits n steps, the last one step: they leave in reverse order
                due_at += left * _STEP_SECONDS
        for _ in range(copies):
            self._store.run(
                "INSERT INTO delivery (account, live, endpoint, event, type, made_at, due_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (scope.account, scope.live, endpoint["id"], event["id"], event["type"], now, due_at),
            )

    def resend(self, event_id: str) -> int:
        """Sends an event again to every endpoint that wants it; returns how many, 0 for an unknown event."""
        found = self._store.find("event", event_id)
        return 0 if found is None else self.add(*found)

    def hurry(self) -> None:
        """Makes everything that waits due now."""
        now = self._clock.wall().timestamp()
        self._store.run("UPDATE delivery SET due_at = ? WHERE state = 'pending'", (now,))
        self._wake.set()

    def all(self) -> list[Json]:
        """Returns all deliveries, newest first."""
        rows = self._store.run(
            "SELECT seq, account, live, endpoint, event, type, made_at, due_at, attempts, state, last_status,"
            " last_error FROM delivery ORDER BY seq DESC"
        )
        return [dict(row) for row in rows]

    async def run(self) -> None:
        """Sends what is due, until cancelled."""
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        limit = asyncio.Semaphore(_AT_ONCE)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                for row in self._claim():
                    tasks.create_task(self._send(session, limit, row))
                try:
                    await asyncio.wait_for(self._wake.wait(), self._until_next())
                except TimeoutError:
                    continue

    def _claim(self) -> list[sqlite3.Row]:
        # A claimed row is due again after the time an answer may take: so it is not lost when the process dies.
        now = self._clock.wall().timestamp()
        with self._store.transaction():
            rows = self._store.run(
                "SELECT seq, account, live, endpoint, event, made_at, attempts FROM delivery"
                " WHERE state = 'pending' AND due_at <= ? ORDER BY due_at, seq LIMIT 100",
                (now,),
            )
            for row in rows:
                self._store.run("UPDATE delivery SET due_at = ? WHERE seq = ?", (now + 2 * _ANSWER_SECONDS, row["seq"]))
        return rows

    def _until_next(self) -> float:
        rows = self._store.run("SELECT min(due_at) AS due_at FROM delivery WHERE state = 'pending'")
        if rows[0]["due_at"] is None:
            return _IDLE_SECONDS
        return min(_IDLE_SECONDS, max(0.01, float(rows[0]["due_at"]) - self._clock.wall().timestamp()))

    async def _send(self, session: aiohttp.ClientSession, limit: asyncio.Semaphore, row: sqlite3.Row) -> None:
        scope = Scope(row["account"], bool(row["live"]))
        endpoint = self._store.get(scope, "webhook_endpoint", row["endpoint"])
        event = self._store.get(scope, "event", row["event"])
        if endpoint is None or event is None or endpoint["status"] != "enabled":
            self._store.run("UPDATE delivery SET state = 'dropped', due_at = NULL WHERE seq = ?", (row["seq"],))
            return
        status, error = None, None
        async with limit:
            try:
                status = await self._post(session, endpoint, event)
            except (aiohttp.ClientError, TimeoutError, OSError) as failed:
                error = f"{type(failed).__name__}: {failed}"
        self._settle(row, status, error)

    async def _post(self, session: aiohttp.ClientSession, endpoint: Json, event: Json) -> int:
        payload = json.dumps(event, indent=2).encode()
        timestamp = int(self._clock.wall().timestamp())
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature(hidden(endpoint)["secrets"], timestamp, payload),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        async with session.post(endpoint["url"], data=payload, headers=headers, allow_redirects=False) as response:
            return response.status

    def _settle(self, row: sqlite3.Row, status: int | None, error: str | None) -> None:
        attempts = row["attempts"] + 1
        now = self._clock.wall().timestamp()
        state, due_at = "pending", None
        if status is not None and 200 <= status < 300:
            state = "delivered"
        elif now - row["made_at"] > _GIVEN_UP_SECONDS:
            state = "failed"
        else:
            due_at = now + min(self._longest_retry_seconds, self._first_retry_seconds * 2 ** (attempts - 1))
        self._store.run(
            "UPDATE delivery SET state = ?, due_at = ?, attempts = ?, last_status = ?, last_error = ? WHERE seq = ?",
            (state, due_at, attempts, status, error, row["seq"]),
        )
        self._wake.set()
