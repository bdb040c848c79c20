"""Owns API keys: making, replacing, listing, ending, telling the edge whose one is, and what follows from a leak."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, timedelta
from uuid import UUID

from gatefold.auth.v1 import api_key_pb2, event_pb2

from libs import caller, errors, idempotency, ids, outbox
from libs.caller import Caller
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Connection, Database
from libs.vault import Cipher, Vault
from services.auth.domain import account as account_rules
from services.auth.domain import api_key as rules
from services.auth.domain import roles
from services.auth.domain.account import SecurityPolicy
from services.auth.domain.api_key import ApiKey
from services.auth.repository import API_KEY_TABLE, api_keys
from services.auth.usecases.facts import Facts

_SECRET_FIELD = 1
_CREATE = "CreateApiKey"
_ROTATE = "RotateApiKey"
_RETRY = idempotency.KEPT + timedelta(minutes=1)
"""Longer than a repetition is known as one."""


class ApiKeys:
    """The keys of accounts."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        pepper: bytes,
        policy_of: Callable[[UUID], Awaitable[SecurityPolicy]],
        clock: WallClock,
        make: IdSource,
        facts: Facts,
        randomness: Callable[[int], bytes],
    ) -> None:
        self._db = db
        self._vault = vault
        self._pepper = pepper
        self._policy_of = policy_of
        self._clock = clock
        self._make = make
        self._facts = facts
        self._randomness = randomness

    async def create(self, request: api_key_pb2.CreateApiKeyRequest, kind: str) -> tuple[ApiKey, str]:
        """Returns a new key's record and the key, which only a repetition of the request gets to see again.

        Raises `forbidden("role_above_own")` for a directory's key, which owners alone make, and as `checked_scopes`,
        `checked_expiry`, `checked_networks` and `_again`.
        """
        who = caller.current()
        account = who.require_account()
        _refuse_directory(kind, who)
        if kind == rules.SCIM and not who.live:
            raise errors.precondition("team_is_live", "The team is kept in the live account: make the key there.")
        now = self._clock.wall()
        expires_at = request.expires_at.ToDatetime(UTC) if request.HasField("expires_at") else None
        key, secret = self._minted(
            ApiKey(
                id=self._make.new(),
                kind=kind,
                live=who.live,
                name=account_rules.checked_name(request.name, longest=80),
                prefix="",
                last_four="",
                scopes=rules.checked_scopes(kind, tuple(request.scopes), who.scopes),
                created_at=now,
                expires_at=rules.checked_expiry(expires_at, now),
                networks=rules.checked_networks(tuple(request.networks)),
            )
        )
        cipher = await self._vault.account_cipher(account)
        async with self._db.tenant(account, "create_api_key") as conn:
            claim = await idempotency.claim(conn, who, _CREATE, request, clock=self._clock)
            if claim.replay is not None:
                return await self._again(conn, cipher, claim.replay)
            await self._add(conn, cipher, key, secret)
            await idempotency.record(conn, who, _CREATE, _kept(key))
        return key, secret

    async def rotate(self, request: api_key_pb2.RotateApiKeyRequest) -> tuple[ApiKey, str]:
        """Returns the successor of a key, as `create` does; the old one works until the overlap is over.

        Raises `not_found("api_key_not_found")`, `precondition("api_key_ended")` for one that works no longer or has a
        successor already, and `forbidden` with reason `scope_not_held` or `role_above_own` when it may do more than
        whoever asks.
        """
        who = caller.current()
        account = who.require_account()
        key = ids.decode("key", request.id)
        # Bounded before it becomes a timedelta, which has a greatest value.
        overlap = timedelta(seconds=max(-1, min(request.overlap_seconds, 10**9)))
        if not timedelta(0) <= overlap <= rules.LONGEST_OVERLAP:
            raise errors.invalid("overlap_invalid", "Two keys overlap for at most 30 days.", field="overlap_seconds")
        now = self._clock.wall()
        cipher = await self._vault.account_cipher(account)
        async with self._db.tenant(account, "rotate_api_key") as conn:
            claim = await idempotency.claim(conn, who, _ROTATE, request, clock=self._clock)
            if claim.replay is not None:
                return await self._again(conn, cipher, claim.replay)
            old = await api_keys.lock(conn, account, key)
            if old is None:
                raise _not_found()
            if not old.works_at(now) or old.replaced_by is not None:
                raise _ended()
            _refuse_directory(old.kind, who)
            scopes = rules.checked_scopes(old.kind, old.scopes, who.scopes) if _checks(old) else ()
            fresh = replace(
                old, id=self._make.new(), scopes=scopes, created_at=now, last_used_at=None, leaked_at=None, leaked_in=""
            )
            made, secret = self._minted(fresh)
            await self._add(conn, cipher, made, secret)
            await api_keys.replace(conn, account, old.id, made.id, rules.rotated_until(old, now, overlap))
            await idempotency.record(conn, who, _ROTATE, _kept(made))
        return made, secret

    async def list_keys(self, before: UUID, limit: int) -> list[ApiKey]:
        """Returns the account's keys, newest first, ended ones as well."""
        account = caller.current().require_account()
        async with self._db.tenant(account, "list_api_keys", read_only=True) as conn:
            return await api_keys.page(conn, account, before, limit)

    async def revoke(self, key: UUID) -> ApiKey:
        """Ends a key; `not_found("api_key_not_found")` for another account's."""
        account = caller.current().require_account()
        async with self._db.tenant(account, "revoke_api_key") as conn:
            ended = await api_keys.revoke(conn, account, key, self._clock.wall())
        if ended is None:
            raise _not_found()
        return ended

    async def resolve(self, key_hash: bytes) -> tuple[UUID, ApiKey]:
        """Returns account and key of a hash, and notes that it is used.

        Raises `not_found("api_key_unknown")` for one that is unknown or ended.
        """
        now = self._clock.wall()
        account, key = await self._find(key_hash)
        if not key.works_at(now):
            raise _unknown()
        noted = now - rules.USE_NOTED_EVERY
        if key.last_used_at is None or key.last_used_at < noted:
            async with self._db.tenant(account, "note_api_key_use") as conn:
                await api_keys.note_use(conn, account, key.id, now, noted)
        return account, key

    async def report_leak(self, key_hash: bytes, place: str) -> bool:
        """Notes that a key was seen where others can read it, and ends it where the account's policy says so.

        Returns whether it was ended. Raises `not_found("api_key_unknown")`.
        """
        if place not in rules.LEAK_PLACES:
            raise errors.invalid("place_invalid", "A key leaks into a browser, a URL or a Referer.", field="place")
        account, key = await self._find(key_hash)
        policy = await self._policy_of(account)
        now = self._clock.wall()
        async with self._db.tenant(account, "report_leaked_api_key") as conn:
            if await api_keys.note_leak(conn, account, key.id, now, place):
                data = event_pb2.ApiKeyLeaked(
                    api_key_id=ids.encode("key", key.id), place=place, revoked=policy.revoke_leaked_keys
                )
                event = self._facts.make("api_key.leaked", account, ("api_key", key.id), data, live=key.live)
                await outbox.append(conn, event=event)
            if policy.revoke_leaked_keys:
                await api_keys.revoke(conn, account, key.id, now)
        return policy.revoke_leaked_keys

    async def _add(self, conn: Connection, cipher: Cipher, key: ApiKey, secret: str) -> None:
        """Adds a key; sealed beside it where the request can be repeated, until nothing is kept of that any more."""
        who = caller.current()
        keyed = who.idempotency_key is not None
        await api_keys.add(
            conn,
            who.require_account(),
            key,
            rules.fingerprint(secret, self._pepper),
            created_by=who.person,
            secret_sealed=cipher.seal(API_KEY_TABLE, _SECRET_FIELD, key.id, secret.encode()) if keyed else None,
            retry_until=key.created_at + _RETRY if keyed else None,
        )

    async def _again(self, conn: Connection, cipher: Cipher, replay: bytes) -> tuple[ApiKey, str]:
        """Returns what was answered before.

        Raises `precondition("api_key_ended")` for a key that was ended since, and as `checked_scopes` when it may do
        more than whoever repeats may give now.
        """
        who = caller.current()
        account = who.require_account()
        made = ids.decode("key", api_key_pb2.ApiKey.FromString(replay).id)
        key, sealed = await api_keys.find(conn, account, made), await api_keys.sealed_secret(conn, account, made)
        if key is None or sealed is None:
            raise _ended()
        if _checks(key):
            rules.checked_scopes(key.kind, key.scopes, who.scopes)
        return key, cipher.open(API_KEY_TABLE, _SECRET_FIELD, made, sealed).decode()

    def _minted(self, key: ApiKey) -> tuple[ApiKey, str]:
        secret = rules.mint(key.kind, key.live, self._randomness)
        prefix, last_four = rules.shown_parts(secret)
        return replace(key, prefix=prefix, last_four=last_four), secret

    async def _find(self, key_hash: bytes) -> tuple[UUID, ApiKey]:
        async with self._db.transaction("route_api_key", read_only=True) as conn:
            route = await api_keys.route(conn, key_hash)
        if route is not None:
            account, key_id = route
            async with self._db.tenant(account, "resolve_api_key", read_only=True) as conn:
                key = await api_keys.find(conn, account, key_id)
            if key is not None:
                return account, key
        raise _unknown()


def _checks(key: ApiKey) -> bool:
    # Of a key that holds no scopes anybody may make another, but not of a directory's.
    return bool(key.scopes) or key.kind == rules.SCIM


def _kept(key: ApiKey) -> api_key_pb2.ApiKey:
    return api_key_pb2.ApiKey(id=ids.encode("key", key.id))


def _ended() -> errors.GatefoldError:
    return errors.precondition("api_key_ended", "This key works no longer, or has a successor already.")


def _unknown() -> errors.GatefoldError:
    return errors.not_found("api_key_unknown", "There is no such key.")


def _not_found() -> errors.GatefoldError:
    return errors.not_found("api_key_not_found", "There is no such key.")


def _refuse_directory(kind: str, who: Caller) -> None:
    if kind == rules.SCIM and who.role != roles.OWNER:
        # It keeps owners out too, which nobody but an owner may do by hand.
        raise errors.forbidden("role_above_own", "Only an owner makes keys of directories.")
