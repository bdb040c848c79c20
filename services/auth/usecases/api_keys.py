"""Owns API keys: making, listing, ending, and telling the edge whose one is."""

from collections.abc import Callable
from uuid import UUID

from libs import caller, errors
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Database
from services.auth.domain import account as account_rules
from services.auth.domain import api_key as rules
from services.auth.domain.api_key import ApiKey
from services.auth.repository import api_keys


class ApiKeys:
    """The keys of accounts."""

    def __init__(
        self,
        db: Database,
        pepper: bytes,
        clock: WallClock,
        make: IdSource,
        randomness: Callable[[int], bytes],
    ) -> None:
        self._db = db
        self._pepper = pepper
        self._clock = clock
        self._make = make
        self._randomness = randomness

    async def create(self, kind: str, name: str, scopes: tuple[str, ...]) -> tuple[ApiKey, str]:
        """Returns a new key's record and the key, which nobody can ever show again. Raises as `checked_scopes`."""
        who = caller.current()
        account = who.require_account()
        secret = rules.mint(kind, who.live, self._randomness)
        prefix, last_four = rules.shown_parts(secret)
        key = ApiKey(
            id=self._make.new(),
            kind=kind,
            live=who.live,
            name=account_rules.checked_name(name, longest=80),
            prefix=prefix,
            last_four=last_four,
            scopes=rules.checked_scopes(kind, scopes, who.scopes),
            created_at=self._clock.wall(),
        )
        async with self._db.tenant(account, "create_api_key") as conn:
            await api_keys.add(conn, account, key, rules.fingerprint(secret, self._pepper))
        return key, secret

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
            raise errors.not_found("api_key_not_found", "There is no such key.")
        return ended

    async def resolve(self, key_hash: bytes) -> tuple[UUID, ApiKey]:
        """Returns account and key of a hash; `not_found("api_key_unknown")` for one that is unknown or ended."""
        async with self._db.transaction("route_api_key", read_only=True) as conn:
            route = await api_keys.route(conn, key_hash)
        if route is not None:
            account, key_id = route
            async with self._db.tenant(account, "resolve_api_key", read_only=True) as conn:
                key = await api_keys.find(conn, account, key_id)
            if key is not None and key.revoked_at is None:
                return account, key
        raise errors.not_found("api_key_unknown", "There is no such key.")
