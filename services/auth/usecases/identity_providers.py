"""Owns the providers that an account lets people sign in with: setting up, changing, switching off."""

import json
from dataclasses import replace
from uuid import UUID

from libs import caller, errors
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Connection, Database, violated
from libs.vault import Vault
from services.auth.clients.openid import Credentials, OpenIdProviders, signing_key
from services.auth.clients.provider_http import AwayError, ForbiddenAddressError
from services.auth.domain import openid, roles, session
from services.auth.domain.federation import READERS, STAFF
from services.auth.domain.openid import Provider, RefusedError
from services.auth.repository import IDENTITY_PROVIDER_TABLE, NEWEST, identities, identity_providers
from services.auth.usecases.federation import Federation

MOST = 20
_SECRET_FIELD = 1


class IdentityProviders:
    """OpenID providers of accounts. Those for staff are set up by owners, in the live account."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        openid_providers: OpenIdProviders,
        federation: Federation,
        clock: WallClock,
        make: IdSource,
    ) -> None:
        self._db = db
        self._vault = vault
        self._openid = openid_providers
        self._federation = federation
        self._clock = clock
        self._make = make

    async def create(self, asked: Provider, credentials: Credentials) -> Provider:
        """Sets a provider up, once its discovery document was read and is in order.

        Raises `invalid` for settings that cannot be used, `discovery_failed` among them, `precondition` with reason
        `provider_exists` or `team_is_live`, and `forbidden("role_above_own")`.
        """
        account = _allowed(asked.audience)
        provider = self._checked(replace(asked, id=self._make.new(), created_at=self._clock.wall()))
        _refuse_missing(provider, credentials)
        await self._discover(provider)
        sealed = await self._sealed(account, provider.id, credentials)
        try:
            async with self._db.tenant(account, "create_identity_provider") as conn:
                if len(await identity_providers.page(conn, account, NEWEST, MOST)) >= MOST:
                    raise errors.precondition("providers_too_many", f"There may be {MOST} providers.")
                await identity_providers.add(conn, account, provider, sealed)
        except Exception as error:
            if violated(error) == "identity_provider_issuer":
                raise errors.precondition(
                    "provider_exists", "There is a provider with this issuer for these people already."
                ) from error
            raise
        return provider

    async def list_providers(self, before: UUID, limit: int) -> list[Provider]:
        """Returns the account's providers, newest first."""
        account = caller.current().require_account()
        async with self._db.tenant(account, "list_identity_providers", read_only=True) as conn:
            return await identity_providers.page(conn, account, before, limit)

    async def update(self, key: UUID, asked: Provider, credentials: Credentials) -> Provider:
        """Replaces a provider's settings; kind, audience and issuer stay, and so does the secret where none is given.

        One that is switched off ends every session that it began. Raises as `create`, and
        `not_found("provider_not_found")`.
        """
        held = await self._held(key)
        account = _allowed(held.audience)
        provider = self._checked(
            replace(
                asked, id=key, kind=held.kind, audience=held.audience, issuer=held.issuer, created_at=held.created_at
            )
        )
        if provider.issuer != held.issuer:
            raise errors.invalid("issuer_invalid", "A provider keeps its issuer; set up another one.", field="tenants")
        if credentials != Credentials():
            _refuse_missing(provider, credentials)
        if provider.enabled:
            await self._discover(provider)
        sealed = await self._sealed(account, key, credentials) if credentials != Credentials() else None
        async with self._db.tenant(account, "update_identity_provider") as conn:
            if not await identity_providers.update(conn, account, provider, sealed, self._clock.wall()):
                raise provider_not_found()
            if not provider.enabled:
                await self._federation.end_all(conn, account, key, session.PROVIDER_ENDED)
        return provider

    async def remove(self, key: UUID) -> None:
        """Deletes a provider with the identities at it, and ends the sessions that it began."""
        held = await self._held(key)
        account = _allowed(held.audience)
        async with self._db.tenant(account, "remove_identity_provider") as conn:
            if not await identity_providers.remove(conn, account, key):
                raise provider_not_found()
            await self._federation.end_all(conn, account, key, session.PROVIDER_ENDED)
            await identities.remove_all(conn, account, key)

    async def offered(self) -> list[Provider]:
        """Returns the providers that readers of the caller's account may sign in with, oldest first."""
        account = caller.current().require_account()
        async with self._db.tenant(account, "offered_providers", read_only=True) as conn:
            return await identity_providers.enabled(conn, account, READERS, MOST)

    async def credentials(self, account: UUID, provider: UUID) -> Credentials:
        """Returns what the account has from a provider."""
        async with self._db.tenant(account, "read_provider_secret", read_only=True) as conn:
            sealed = await identity_providers.secret_of(conn, account, provider)
        if sealed is None:
            return Credentials()
        cipher = await self._vault.account_cipher(account)
        return Credentials(**json.loads(cipher.open(IDENTITY_PROVIDER_TABLE, _SECRET_FIELD, provider, sealed)))

    async def _held(self, key: UUID) -> Provider:
        account = caller.current().require_account()
        async with self._db.tenant(account, "find_identity_provider", read_only=True) as conn:
            found = await identity_providers.find(conn, account, key)
        if found is None:
            raise provider_not_found()
        return found

    def _checked(self, asked: Provider) -> Provider:
        return openid.checked(asked, private=self._openid.private)

    async def _discover(self, provider: Provider) -> None:
        try:
            await self._openid.discover(provider, anew=True)
        except AwayError as error:
            raise _discovery_failed(f"The issuer's discovery document cannot be read: {error}.") from error
        except ForbiddenAddressError as error:
            raise _discovery_failed("The issuer leads into a private network.") from error
        except RefusedError as error:
            raise _discovery_failed(f"The issuer's discovery document cannot be used: {error}.") from error

    async def _sealed(self, account: UUID, provider: UUID, credentials: Credentials) -> bytes | None:
        if credentials == Credentials():
            return None
        cipher = await self._vault.account_cipher(account)
        return cipher.seal(IDENTITY_PROVIDER_TABLE, _SECRET_FIELD, provider, json.dumps(vars(credentials)).encode())


async def still_enabled(conn: Connection, account: UUID, provider: UUID) -> None:
    """Keeps a provider enabled until the transaction ends; raises `not_found("provider_not_found")`."""
    if not await identity_providers.is_enabled(conn, account, provider):
        raise provider_not_found()


def provider_not_found() -> errors.GatefoldError:
    """Returns the error of a provider that is not there, or switched off."""
    return errors.not_found("provider_not_found", "There is no such provider.")


def _allowed(audience: str) -> UUID:
    """Returns the caller's account, which may set up a provider for these people.

    Whoever decides what a provider says decides who its people are: for staff that is for owners, since an admin could
    otherwise come in as one, or as the second of two who have to agree.
    """
    who = caller.current()
    if audience == STAFF:
        if not who.live:
            raise errors.precondition("team_is_live", "Providers for staff are kept in the live account.")
        if who.role != roles.OWNER:
            raise errors.forbidden("role_above_own", "Only an owner sets up providers for staff.")
    return who.require_account()


def _refuse_missing(provider: Provider, credentials: Credentials) -> None:
    if provider.kind == openid.APPLE:
        try:
            signing_key(credentials.private_key)
        except ValueError:
            raise errors.invalid(
                "private_key_invalid", "Apple needs the private key that was downloaded, in PEM.", field="private_key"
            ) from None
        if not (provider.team_id and provider.key_id):
            raise errors.invalid("key_id_missing", "Apple needs a team id and a key id.", field="key_id")
    elif provider.kind != openid.GENERIC and not credentials.client_secret:
        raise errors.invalid("client_secret_missing", "This provider needs a client secret.", field="client_secret")


def _discovery_failed(detail: str) -> errors.GatefoldError:
    return errors.invalid("discovery_failed", detail, field="issuer")
