"""Owns trying a password: counted before it is hashed, in the store or the database, and told to the abuse service."""

import asyncio
import hmac
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import UUID

from gatefold.activity.v1 import activity_pb2
from redis.exceptions import RedisError

from libs import caller, errors, ids
from libs.caller import CallerKind
from libs.clock import WallClock
from libs.errors import GatefoldError, Kind
from libs.ids import IdSource
from libs.postgres import PLATFORM, Database
from libs.telemetry import Telemetry
from services.auth.clients.attempt_store import AttemptStore
from services.auth.domain import attempts as rules
from services.auth.domain import device_token, session
from services.auth.domain.attempts import Bucket, Rule
from services.auth.domain.sign_in import Door
from services.auth.repository import attempts, credentials, people
from services.auth.usecases.secrets import TokenSecrets

T = TypeVar("T")

STORE_SECONDS = 0.5
"""How long a sign-in waits for the store before the database counts."""
_AWAY = (TimeoutError, GatefoldError, RedisError, OSError)


@dataclass(frozen=True)
class Limits:
    """How many wrong passwords are too many."""

    principal: Rule
    address: Rule
    alarm_seconds: int
    """The window in which accounts are counted that wrong passwords were tried on."""
    alarm_accounts: int
    alarm_network_accounts: int
    """From one /24 or /48."""


class Activities(Protocol):
    """Takes security events; never waits."""

    def record(self, activity: activity_pb2.Activity) -> None: ...


@dataclass(frozen=True)
class Target:
    """Whose password is tried, and where."""

    owner: UUID
    """The account, or the platform for a person."""
    email_index: bytes
    principal: UUID | None
    """None for an address that nobody has."""
    device_token: str
    route: str


class Attempts:
    """Guards passwords."""

    def __init__(
        self,
        db: Database,
        store: AttemptStore,
        limits: Limits,
        secrets: TokenSecrets,
        activities: Activities,
        activity_key: bytes,
        clock: WallClock,
        make: IdSource,
        telemetry: Telemetry,
    ) -> None:
        self._db = db
        self._store = store
        self._limits = limits
        self._secret = secrets.attempt
        self._device_secret = secrets.device
        self._activities = activities
        self._activity_key = activity_key
        self._clock = clock
        self._make = make
        self._refused = telemetry.counter("sign_ins_delayed", "Passwords not looked at: too many were wrong before.")
        self._wrong = telemetry.counter("sign_ins_wrong", "Wrong passwords.")
        self._away = telemetry.counter("attempt_store_failures", "Attempts that the database counted for the store.")
        self._alarms = telemetry.counter(
            "sign_in_alarms", "Wrong passwords on too many accounts, from everywhere or one network.", ("scope",)
        )
        self._challenge = telemetry.gauge("sign_in_challenge_until_seconds", "Unix time until which sign-ins are odd.")
        self._log = telemetry.logger("attempts")

    async def guarded(self, target: Target, check: Callable[[], Awaitable[T | None]]) -> T | None:
        """Returns what `check` finds; None for a wrong password. An attempt is counted before `check` looks at it.

        Raises `too_many("sign_in_delayed")` without looking, whether the password is right or wrong and the address
        known or not. A right one empties its own bucket alone and takes back what it added to the address's.
        """
        own, around = self._buckets(target)
        wait = await self._claim([own, *around])
        if wait:
            self._refused.inc()
            self._tell(target, 429, "sign_in_delayed")
            raise errors.too_many(
                "sign_in_delayed", "There were too many wrong passwords; wait before the next.", math.ceil(wait / 1000)
            )
        try:
            found = await check()
        except GatefoldError as error:
            if error.kind is Kind.UNAVAILABLE:
                # Nothing was looked at.
                await self._give_back([own, *around])
            raise
        if found is None:
            self._wrong.inc()
            self._tell(target, 401, "credentials_invalid")
            await self._count_failure(target)
            return None
        self._tell(target, 200, "")
        await self._empty(own)
        if around:
            await self._give_back(around)
        return found

    def knows(self, target: Target) -> bool:
        """Tells whether whoever signs in has done so on this device before."""
        return self._device(target) is not None

    def device_for(self, door: Door) -> str:
        """Returns the token of a device that somebody has just signed in on."""
        now = self._clock.wall()
        return device_token.make(self._make.new(), door.owner, door.principal, now, self._device_secret)

    async def lift(self, door: Door) -> None:
        """Empties all buckets of somebody who has proven the mailbox."""
        async with self._db.tenant(door.owner, "forget_attempts") as conn:
            if door.kind == session.SUBSCRIBER:
                index = await credentials.index_of(conn, door.owner, door.principal)
            else:
                index = await people.index_of(conn, door.principal)
            if index is None:
                return
            key = rules.principal_key(self._secret, door.owner, index)
            await attempts.forget(conn, key)
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await self._store.forget(key)
        except _AWAY as error:
            self._failed(error)

    async def tell_of(self, owner: UUID, principal: UUID | None, route: str, reason: str = "") -> None:
        """Tells of a sign-in without a password, which nobody can guess: it is not counted."""
        index = b""
        if principal is not None:
            async with self._db.tenant(owner, "find_address", read_only=True) as conn:
                if owner == PLATFORM:
                    index = await people.index_of(conn, principal) or b""
                else:
                    index = await credentials.index_of(conn, owner, principal) or b""
        self._tell(Target(owner, index, principal, "", route), 401 if reason else 200, reason)

    def _buckets(self, target: Target) -> tuple[Bucket, list[Bucket]]:
        key = rules.principal_key(self._secret, target.owner, target.email_index)
        device = self._device(target)
        if device is not None:
            # A stranger who shares the network, and fills the address's bucket, keeps nobody from their own device.
            return Bucket(key, device.hex, self._limits.principal), []
        own = Bucket(key, rules.UNTRUSTED, self._limits.principal)
        network = rules.network_of(_client_address())
        if not network:
            return own, []
        around = rules.key_of(self._secret, b"network", network.encode())
        return own, [Bucket(around, rules.UNTRUSTED, self._limits.address)]

    def _device(self, target: Target) -> UUID | None:
        if target.principal is None or not target.device_token:
            return None
        now = self._clock.wall()
        return device_token.read(target.device_token, target.owner, target.principal, now, self._device_secret)

    async def _claim(self, buckets: list[Bucket]) -> int:
        now = self._now()
        try:
            async with asyncio.timeout(STORE_SECONDS):
                return await self._store.claim(buckets, now)
        except _AWAY as error:
            self._failed(error)
        async with self._db.transaction("claim_attempt") as conn:
            states = await attempts.lock(conn, buckets, self._clock.wall())
            pairs = list(zip(buckets, states, strict=True))
            wait = max(rules.wait_left(state, bucket.rule, now) for bucket, state in pairs)
            if not wait:
                for bucket, state in pairs:
                    await attempts.store(conn, bucket, rules.counted(state, bucket.rule, now))
        return wait

    async def _give_back(self, buckets: list[Bucket]) -> None:
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await self._store.give_back(buckets, self._now())
        except _AWAY as error:
            self._failed(error)
        else:
            return
        async with self._db.transaction("return_attempt") as conn:
            states = await attempts.lock(conn, buckets, self._clock.wall())
            for bucket, state in zip(buckets, states, strict=True):
                await attempts.store(conn, bucket, rules.returned(state, bucket.rule))

    async def _empty(self, bucket: Bucket) -> None:
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await self._store.empty(bucket)
        except _AWAY as error:
            self._failed(error)
        else:
            return
        async with self._db.transaction("empty_bucket") as conn:
            await attempts.empty(conn, bucket)

    async def _count_failure(self, target: Target) -> None:
        limits = self._limits
        principal = rules.principal_key(self._secret, target.owner, target.email_index)
        network = rules.network_of(_client_address(), wide=True)
        near = rules.key_of(self._secret, b"wide", network.encode())
        window = self._now() // (1000 * limits.alarm_seconds)
        try:
            async with asyncio.timeout(STORE_SECONDS):
                _, wide, close = await self._store.count_failure(principal, near, window, limits.alarm_seconds)
                everywhere = wide >= limits.alarm_accounts
                if everywhere:
                    await self._store.raise_challenge(limits.alarm_seconds)
        except _AWAY as error:
            self._failed(error)
            return
        if everywhere:
            self._alarms.labels("everywhere").inc()
            self._challenge.set(self._clock.wall().timestamp() + limits.alarm_seconds)
        if network and close >= limits.alarm_network_accounts:
            self._alarms.labels("network").inc()

    def _tell(self, target: Target, status: int, reason: str) -> None:
        who = caller.current()
        address = _client_address()
        activity = activity_pb2.Activity(
            account_id=ids.encode("acct", target.owner) if target.owner != PLATFORM else "",
            http_request_method="POST",
            http_route=target.route,
            http_response_status_code=status,
            client_address_hash=self._hidden(address),
            client_network_hash=self._hidden(rules.network_of(address, wide=True)),
            user_agent_hash=self._hidden(who.user_agent or ""),
            caller_kind=who.kind.name,
            actor_hash=self._hidden(target.owner.hex + target.email_index.hex()),
            problem_reason=reason,
            request_id=who.request_id,
        )
        activity.time.FromDatetime(self._clock.wall())
        self._activities.record(activity)

    def _hidden(self, text: str) -> bytes:
        return hmac.digest(self._activity_key, text.encode(), "sha256") if text else b""

    def _failed(self, error: Exception) -> None:
        self._away.inc()
        self._log.warning("the store does not count attempts", extra={"why": type(error).__name__})

    def _now(self) -> int:
        return int(self._clock.wall().timestamp() * 1000)


def _client_address() -> str:
    """Returns the address of whoever signs in; empty behind a secret key, where it is a publisher's server's."""
    who = caller.current()
    return "" if who.kind is CallerKind.SECRET_KEY else who.address or ""
