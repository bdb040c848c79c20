"""Owns the clients of the OpenID Connect provider: registering, changing, another secret, and finding one."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from libs import caller, errors, ids
from libs.clock import WallClock
from libs.errors import GatefoldError
from libs.ids import IdSource
from libs.postgres import Database
from services.auth.domain import account as account_rules
from services.auth.domain import api_key
from services.auth.domain import oauth as rules
from services.auth.domain.oauth import Client
from services.auth.repository import oauth, oauth_clients

_SECRET_BYTES = 32


class OAuthClients:
    """Sites and apps of accounts."""

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

    async def create(self, wanted: Client) -> tuple[Client, str]:
        """Returns a new client, and its secret where it can keep one, which nobody can ever show again.

        Identifier, account and times of `wanted` are given here. Raises `invalid` with reason `name_invalid`,
        `redirect_uri_invalid`, `url_invalid` or `scope_unknown`.
        """
        now = self._clock.wall()
        secret = rules.client_secret(self._randomness(_SECRET_BYTES)) if wanted.confidential else ""
        account = caller.current().require_account()
        client = replace(
            _checked(wanted),
            id=self._make.new(),
            account=account,
            enabled=True,
            created_at=now,
            updated_at=now,
            secret_hash=api_key.fingerprint(secret, self._pepper) if secret else None,
        )
        async with self._db.tenant(account, "create_oauth_client") as conn:
            await oauth_clients.add(conn, client)
        return client, secret

    async def list_clients(self, before: UUID, limit: int) -> list[Client]:
        """Returns the account's clients, newest first."""
        account = caller.current().require_account()
        async with self._db.tenant(account, "list_oauth_clients", read_only=True) as conn:
            return await oauth_clients.page(conn, account, before, limit)

    async def get(self, key: UUID) -> Client:
        """Returns a client; raises `not_found("oauth_client_not_found")`."""
        account = caller.current().require_account()
        async with self._db.tenant(account, "read_oauth_client", read_only=True) as conn:
            found = await oauth_clients.find(conn, account, key)
        if found is None:
            raise _not_found()
        return found

    async def update(self, wanted: Client) -> Client:
        """Replaces what is known of a client; disabling it ends its tokens. Raises as `create` and `get`."""
        account, now = caller.current().require_account(), self._clock.wall()
        checked = _checked(wanted)
        async with self._db.tenant(account, "update_oauth_client") as conn:
            held = await oauth_clients.lock(conn, account, wanted.id)
            if held is None:
                raise _not_found()
            changed = replace(
                held,
                name=checked.name,
                home_url=checked.home_url,
                logo_url=checked.logo_url,
                redirect_uris=checked.redirect_uris,
                post_logout_redirect_uris=checked.post_logout_redirect_uris,
                scopes=checked.scopes,
                first_party=checked.first_party,
                enabled=checked.enabled,
                updated_at=now,
            )
            await oauth_clients.replace(conn, changed)
            if not changed.enabled:
                await oauth.revoke_of(conn, account, held.id, now, rules.CLIENT_DISABLED)
        return changed

    async def rotate_secret(self, key: UUID, overlap: timedelta) -> tuple[Client, str]:
        """Returns a confidential client and its new secret; the former one works until the overlap is over.

        Raises as `get`, and `precondition("oauth_client_public")`.
        """
        account, now = caller.current().require_account(), self._clock.wall()
        if not timedelta(0) <= overlap <= rules.LONGEST_OVERLAP:
            raise errors.invalid("overlap_invalid", "Two secrets overlap for at most 30 days.", field="overlap_seconds")
        secret = rules.client_secret(self._randomness(_SECRET_BYTES))
        async with self._db.tenant(account, "rotate_oauth_client_secret") as conn:
            held = await oauth_clients.lock(conn, account, key)
            if held is None:
                raise _not_found()
            if not held.confidential:
                raise errors.precondition("oauth_client_public", "A public client has no secret.")
            changed = replace(
                held,
                secret_hash=api_key.fingerprint(secret, self._pepper),
                former_secret_hash=held.secret_hash if overlap else None,
                former_secret_until=now + overlap if overlap else None,
                updated_at=now,
            )
            await oauth_clients.replace(conn, changed)
        return changed, secret

    async def find(self, client_id: str) -> Client | None:
        """Returns the client with a `client_id`, in whatever account; None for none, and for a disabled one."""
        try:
            key = ids.decode("cli", client_id)
        except GatefoldError:
            return None
        async with self._db.transaction("find_oauth_client", read_only=True) as conn:
            account = await oauth_clients.account_of(conn, key)
        if account is None:
            return None
        async with self._db.tenant(account, "read_oauth_client", read_only=True) as conn:
            found = await oauth_clients.find(conn, account, key)
        return found if found is not None and found.enabled else None

    def proves(self, client: Client, secret: str, now: datetime) -> bool:
        """Tells whether whoever shows a secret, or none, may speak for a client."""
        if not client.confidential:
            return not secret
        return client.has_secret(api_key.fingerprint(secret, self._pepper), now)


def _checked(wanted: Client) -> Client:
    return replace(
        wanted,
        name=account_rules.checked_name(wanted.name, longest=80),
        home_url=rules.checked_page(wanted.home_url, field="home_url"),
        logo_url=rules.checked_page(wanted.logo_url, field="logo_url"),
        redirect_uris=rules.checked_redirect_uris(wanted.redirect_uris),
        post_logout_redirect_uris=rules.checked_redirect_uris(
            wanted.post_logout_redirect_uris, field="post_logout_redirect_uris"
        ),
        scopes=rules.checked_scopes(wanted.scopes),
    )


def _not_found() -> errors.GatefoldError:
    return errors.not_found("oauth_client_not_found", "There is no such client.")
