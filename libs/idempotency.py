"""Owns Idempotency-Key: one effect for each key, its answer replayed for 24 hours, written in the effect's transaction.

Follows draft-ietf-httpapi-idempotency-key-header-07: another body under the same key is refused (422), a repetition
while the first is under way as well (409). Errors are not kept: what was rolled back may be tried again.
"""

import asyncio
import hashlib
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from google.protobuf.message import Message

from libs import errors
from libs.caller import Caller
from libs.clock import WallClock
from libs.errors import GatefoldError, Kind
from libs.events.pause import pause
from libs.postgres import PLATFORM, Connection, Database, as_tenant

KEPT = timedelta(hours=24)
# Longer than any deadline of a call: whoever held the key that long has been given up by its caller.
LEASE_SECONDS = 10
PURGE_SECONDS = 60.0
_PURGE_ROWS = 1_000


@dataclass(frozen=True)
class Claim:
    """What is known about the key: the recorded answer, or what an attempt that did not end had reserved."""

    replay: bytes | None
    """The serialised response to answer again; None when the work is to be done."""
    reference: UUID | None = None
    """The intent that an earlier attempt committed and did not record: go on with that one."""


async def claim(
    conn: Connection,
    caller: Caller,
    method: str,
    request: Message,
    *,
    clock: WallClock,
    reference: UUID | None = None,
    lease_seconds: int = LEASE_SECONDS,
) -> Claim:
    """Takes the caller's key for this call, in the transaction that makes the effect or reserves it.

    Without a key nothing is recorded and everything is new. A use case that calls a vendor passes the id of its intent
    as `reference` and commits; until it records, or `lease_seconds` have passed, repetitions are refused, and after
    that one of them gets the reference and goes on. Raises `invalid("idempotency_key_reused")` for another request
    under the key and `conflict("idempotency_in_flight")` while the key is in use.
    """
    if caller.idempotency_key is None:
        return Claim(None)
    now = clock.wall()
    place = _place(caller, method)
    digest = _request_hash(method, request)
    async with _own_tenant(conn, caller):
        row = await conn.fetchrow(
            """
            WITH lock AS MATERIALIZED (SELECT pg_try_advisory_xact_lock($9) AS held),
            added AS (
                INSERT INTO idempotency_key AS kept
                    (account_id, caller, method, key, request_hash, state, reference, created_at, locked_until,
                     expires_at)
                SELECT $1, $2, $3, $4, $5, 'started', $6, $7, $8, $10 FROM lock WHERE held
                ON CONFLICT (account_id, caller, method, key) DO UPDATE
                SET request_hash = excluded.request_hash, state = 'started', reference = excluded.reference,
                    response = NULL, created_at = excluded.created_at, locked_until = excluded.locked_until,
                    expires_at = excluded.expires_at
                WHERE kept.expires_at <= excluded.created_at
                RETURNING true
            )
            SELECT held, EXISTS (SELECT FROM added) AS added FROM lock
            """,
            *place,
            digest,
            reference,
            now,
            now + timedelta(seconds=lease_seconds),
            _lock_number(place, request),
            now + KEPT,
        )
        assert row is not None
        if not row["held"]:
            # Its transaction is still open, so that it will be decided within a moment.
            raise _in_flight(1)
        if row["added"]:
            return Claim(None)
        # The lock is held, so nobody changes the row between these statements.
        row = await conn.fetchrow(
            """
            SELECT request_hash, state, reference, response, locked_until FROM idempotency_key
            WHERE account_id = $1 AND caller = $2 AND method = $3 AND key = $4
            """,
            *place,
        )
        assert row is not None
        if row["request_hash"] != digest:
            raise errors.invalid(
                "idempotency_key_reused", "This Idempotency-Key was used with another request; use a new one."
            )
        if row["state"] == "done":
            return Claim(row["response"], row["reference"])
        if row["locked_until"] > now:
            raise _in_flight(max(1, -((now - row["locked_until"]) // timedelta(seconds=1))))
        await conn.execute(
            """
            UPDATE idempotency_key SET locked_until = $5, reference = coalesce(reference, $6)
            WHERE account_id = $1 AND caller = $2 AND method = $3 AND key = $4
            """,
            *place,
            now + timedelta(seconds=lease_seconds),
            reference,
        )
        return Claim(None, row["reference"])


async def record(conn: Connection, caller: Caller, method: str, response: Message) -> None:
    """Keeps the answer for repetitions, in the transaction of the effect; without a key it does nothing.

    Put no personal data into `response`: an erasure does not reach it. An id is enough to answer again from.
    """
    if caller.idempotency_key is None:
        return
    async with _own_tenant(conn, caller):
        status = await conn.execute(
            """
            UPDATE idempotency_key SET state = 'done', response = $5
            WHERE account_id = $1 AND caller = $2 AND method = $3 AND key = $4
            """,
            *_place(caller, method),
            response.SerializeToString(deterministic=True),
        )
    if status != "UPDATE 1":
        raise errors.internal("idempotency_not_claimed", "The answer could not be kept.")


async def release(conn: Connection, caller: Caller, method: str, *, clock: WallClock) -> None:
    """Lets the next repetition go on at once, when this attempt ends without an answer after it has reserved."""
    if caller.idempotency_key is None:
        return
    async with _own_tenant(conn, caller):
        await conn.execute(
            """
            UPDATE idempotency_key SET locked_until = $5
            WHERE account_id = $1 AND caller = $2 AND method = $3 AND key = $4 AND state = 'started'
            """,
            *_place(caller, method),
            clock.wall(),
        )


async def purge_expired(jobs_db: Database, clock: WallClock) -> int:
    """Deletes one batch of expired keys; returns how many."""
    async with jobs_db.transaction("purge_idempotency_keys") as conn:
        deleted = await conn.fetch(
            """
            DELETE FROM idempotency_key WHERE (account_id, caller, method, key) IN (
                SELECT account_id, caller, method, key FROM idempotency_key WHERE expires_at <= $1
                ORDER BY expires_at LIMIT $2
            ) AND expires_at <= $1 RETURNING account_id
            """,
            clock.wall(),
            _PURGE_ROWS,
        )
    return len(deleted)


class Purger:
    """Deletes expired keys in the background."""

    def __init__(self, jobs_db: Database, clock: WallClock) -> None:
        self._jobs_db = jobs_db
        self._clock = clock

    async def run(self, stop: asyncio.Event) -> None:
        """Purges once a minute until `stop` is set; a database that is away is waited for."""
        while not stop.is_set():
            try:
                purged = await purge_expired(self._jobs_db, self._clock)
            except GatefoldError as error:
                if error.kind is not Kind.UNAVAILABLE:
                    raise
                purged = 0
            if purged < _PURGE_ROWS:
                await pause(stop, PURGE_SECONDS)


def _own_tenant(conn: Connection, caller: Caller) -> AbstractAsyncContextManager[None]:
    """Keys of the platform plane belong to the nil account, whatever tenant the transaction works on."""
    return as_tenant(conn, PLATFORM) if caller.account is None else nullcontext()


def _place(caller: Caller, method: str) -> tuple[UUID, str, str, str]:
    return caller.account or PLATFORM, caller.actor, method, caller.idempotency_key or ""


def _request_hash(method: str, request: Message) -> bytes:
    name = f"{method}\0{request.DESCRIPTOR.full_name}\0".encode()
    return hashlib.sha256(name + request.SerializeToString(deterministic=True)).digest()


def _lock_number(place: tuple[UUID, str, str, str], request: Message) -> int:
    """Advisory locks are numbers that all services of a database share; the message's name keeps services apart."""
    text = "\0".join([str(place[0]), *place[1:], request.DESCRIPTOR.full_name])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


def _in_flight(seconds: int) -> GatefoldError:
    return errors.conflict(
        "idempotency_in_flight",
        "A request with this Idempotency-Key is being worked on; try again in a moment.",
        retry_after_seconds=seconds,
    )
