"""Owns trying a password: counted before it is hashed, in the store or the database, and told to the abuse service."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import UUID

from gatefold.activity.v1 import activity_pb2
from redis.exceptions import RedisError

from libs import caller, errors, ids
from libs.activity import Pseudonyms, network_of
from libs.caller import CallerKind
from libs.clock import WallClock
from libs.errors import GatefoldError, Kind
from libs.ids import IdSource
from libs.postgres import PLATFORM, Connection, Database, as_tenant
from libs.telemetry import Telemetry
from services.auth.clients.attempt_store import AttemptStore
from services.auth.domain import attempts as rules
from services.auth.domain import device_token, session
from services.auth.domain.attempts import Bucket, Rule, Trust
from services.auth.domain.sign_in import Door
from services.auth.domain.travel import Place
from services.auth.repository import attempts, credentials, known_networks, people
from services.auth.usecases.secrets import TokenSecrets

T = TypeVar("T")

_NOBODY = UUID(int=0)
_RIGHT = 200
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
    store_seconds: float = 0.5
    """How long a sign-in waits for the store before the database counts, which has not seen what the store has: a store
    that comes and goes lets twice as many through."""


Offer = Callable[[UUID, bytes], Awaitable[None]]
"""Mails whoever has an address under an owner, if anybody, a link that lifts the lock."""


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
    session: UUID | None = None
    """The session in which the password is asked for again."""
    password_version: int = 0
    """Of the principal's password: devices and networks are known as long as that."""

    @property
    def actor(self) -> str:
        """Who signs in, as requests name them afterwards; empty for nobody. Only of whoever was right it is known."""
        if self.principal is None:
            return ""
        return ids.encode("per" if self.owner == PLATFORM else "subj", self.principal)

    @property
    def trust(self) -> Trust:
        """To whom devices and networks are known; of an address that nobody has, none are."""
        return Trust(self.owner, self.principal or _NOBODY, self.password_version)


class Attempts:
    """Guards passwords."""

    def __init__(
        self,
        db: Database,
        store: AttemptStore,
        limits: Limits,
        secrets: TokenSecrets,
        activities: Activities,
        offer: Offer,
        pseudonyms: Pseudonyms,
        place_of: Callable[[str], Place | None],
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
        self._offer = offer
        self._hidden = pseudonyms.of
        self._place_of = place_of
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
        known or not. A right one empties its own bucket alone and takes back what it added to the address's. Whoever
        has the address is mailed when a bucket begins to make them wait, and when it is shut; the work is the same for
        an address that nobody has.
        """
        own, around = await self._buckets(target)
        wait, tries = await self._claim([own, *around])
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
            if tries in (own.rule.free, own.rule.most):
                await self._offer(target.owner, target.email_index)
            return None
        self._tell(target, _RIGHT, "")
        await self._empty(own)
        if around:
            await self._give_back(around)
        return found

    async def remember(self, conn: Connection, door: Door) -> str:
        """Keeps the network that somebody signs in from, or sets a new password, in the transaction of that; returns
        the token of the device.

        Empty, and nothing kept, where an account's own provider said who staff are: with a fresh token for each
        sign-in, who runs it could guess a person's own password without end.
        """
        if door.federated_staff:
            return ""
        now, network = self._clock.wall(), rules.network_of(_client_address())
        async with as_tenant(conn, door.owner):
            if door.kind == session.SUBSCRIBER:
                version = await credentials.password_version(conn, door.account, door.principal)
            else:
                version = await people.password_version(conn, door.principal)
            trust = Trust(door.owner, door.principal, version)
            if network:
                key = rules.network_key(self._secret, trust, network)
                await known_networks.see(conn, door.owner, door.principal, key, now, most=rules.MOST_NETWORKS)
        return device_token.make(door.device or self._make.new(), trust, now, self._device_secret)

    async def target_of(self, door: Door, route: str) -> Target:
        """Returns whoever is signed in, who is asked for the password again: each session counts by itself."""
        async with self._db.tenant(door.owner, "find_address", read_only=True) as conn:
            index = await _index_of(conn, door) or b""
        return Target(door.owner, index, door.principal, "", route, caller.current().session)

    async def release(self, door: Door) -> None:
        """Ends the waits of somebody for whom staff speak, and goes on counting.

        Raises `precondition("sign_in_shut")` after a hundred wrong passwords in a row: only the mailbox opens that, or
        staff could guess the password of a person who works for others too.
        """
        shut, now, most = False, self._now(), self._limits.principal.most
        async with self._db.tenant(door.owner, "release_attempts") as conn:
            index = await _index_of(conn, door)
            if index is None:
                return
            key = rules.principal_key(self._secret, door.owner, index)
            shut = await attempts.release(conn, key, now, most)
        try:
            async with asyncio.timeout(self._limits.store_seconds):
                shut |= await self._store.release(key, now, most)
        except _AWAY as error:
            self._failed(error)
        if shut:
            raise errors.precondition(
                "sign_in_shut", "Too many passwords were wrong in a row: a mailed link opens this, or a new password."
            )

    async def lift(self, door: Door) -> None:
        """Empties all buckets of somebody who has proven the mailbox."""
        async with self._db.tenant(door.owner, "forget_attempts") as conn:
            index = await _index_of(conn, door)
            if index is None:
                return
            key = rules.principal_key(self._secret, door.owner, index)
            await attempts.forget(conn, key)
        try:
            async with asyncio.timeout(self._limits.store_seconds):
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
        self._tell(Target(owner, index, principal, "", route), 401 if reason else _RIGHT, reason)

    async def _buckets(self, target: Target) -> tuple[Bucket, list[Bucket]]:
        key = rules.principal_key(self._secret, target.owner, target.email_index)
        if target.session is not None:
            # Whoever stole a session shuts nobody else out, and nobody shuts the owner out of this one.
            return Bucket(key, f"session {target.session.hex}", self._limits.principal), []
        device = self.device_of(target)
        if device is not None:
            # A stranger who shares the network, and fills the address's bucket, keeps nobody from their own device.
            return Bucket(key, device.hex, self._limits.principal), []
        network = rules.network_of(_client_address())
        if not network:
            return Bucket(key, rules.UNTRUSTED, self._limits.principal), []
        own = Bucket(key, await self._place(target, network), self._limits.principal)
        around = rules.key_of(self._secret, b"network", network.encode())
        return own, [Bucket(around, rules.UNTRUSTED, self._limits.address)]

    def device_of(self, target: Target) -> UUID | None:
        """Returns the device that whoever it is showed to have signed in on before, with the password they have now."""
        if target.principal is None or not target.device_token:
            return None
        return device_token.read(target.device_token, target.trust, self._clock.wall(), self._device_secret)

    async def _place(self, target: Target, network: str) -> str:
        """Returns the field of a network that whoever it is has signed in from lately; the look-up is everybody's."""
        principal = target.trust.principal
        key = rules.network_key(self._secret, target.trust, network)
        since = self._clock.wall() - rules.KNOWN_FOR
        async with self._db.tenant(target.owner, "find_network", read_only=True) as conn:
            known = await known_networks.seen(conn, target.owner, principal, key, since)
        return f"network {key.hex()}" if known else rules.UNTRUSTED

    async def _claim(self, buckets: list[Bucket]) -> tuple[int, int]:
        now = self._now()
        try:
            async with asyncio.timeout(self._limits.store_seconds):
                return await self._store.claim(buckets, now)
        except _AWAY as error:
            self._failed(error)
        tries = 0
        async with self._db.transaction("claim_attempt") as conn:
            states = await attempts.lock(conn, buckets, self._clock.wall())
            pairs = list(zip(buckets, states, strict=True))
            wait = max(rules.wait_left(state, bucket.rule, now) for bucket, state in pairs)
            if not wait:
                tries = rules.counted(states[0], buckets[0].rule, now).tries
                for bucket, state in pairs:
                    await attempts.store(conn, bucket, rules.counted(state, bucket.rule, now))
        return wait, tries

    async def _give_back(self, buckets: list[Bucket]) -> None:
        try:
            async with asyncio.timeout(self._limits.store_seconds):
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
            async with asyncio.timeout(self._limits.store_seconds):
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
            async with asyncio.timeout(self._limits.store_seconds):
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
        device = self.device_of(target)
        activity = activity_pb2.Activity(
            account_id=ids.encode("acct", target.owner) if target.owner != PLATFORM else "",
            http_request_method="POST",
            http_route=target.route,
            http_response_status_code=status,
            client_address_hash=self._hidden("address", address),
            client_network_hash=self._hidden("network", network_of(address)),
            user_agent_hash=self._hidden("user_agent", who.user_agent or ""),
            caller_kind=who.kind.name,
            event_name="sign_in.password",
            target_hash=self._hidden("target", target.owner.hex + target.email_index.hex()),
            device_hash=self._hidden("device", device.hex if device else ""),
            actor_hash=self._hidden("actor", target.actor if status == _RIGHT else ""),
            problem_reason=reason,
            request_id=who.request_id,
        )
        activity.time.FromDatetime(self._clock.wall())
        place = self._place_of(address) if address else None
        if place is not None:
            # In whole degrees, as the edge says it.
            activity.geo_location_lat, activity.geo_location_lon = round(place.latitude), round(place.longitude)
            activity.geo_country_iso_code = place.country
        self._activities.record(activity)

    def _failed(self, error: Exception) -> None:
        self._away.inc()
        self._log.warning("the store does not count attempts", extra={"why": type(error).__name__})

    def _now(self) -> int:
        return int(self._clock.wall().timestamp() * 1000)


async def _index_of(conn: Connection, door: Door) -> bytes | None:
    if door.kind == session.SUBSCRIBER:
        return await credentials.index_of(conn, door.owner, door.principal)
    return await people.index_of(conn, door.principal)


def _client_address() -> str:
    """Returns the address of whoever signs in; empty behind a secret key, where it is a publisher's server's."""
    who = caller.current()
    return "" if who.kind is CallerKind.SECRET_KEY else who.address or ""
