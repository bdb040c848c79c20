"""Owns an account's SAML identity providers: what owners say of them, and what they are told of us."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Protocol
from uuid import UUID

from libs import caller, errors, ids
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Connection as Conn
from libs.postgres import Database, violated
from services.auth.domain import roles, session
from services.auth.domain import saml as rules
from services.auth.domain.saml import Connection, Ourselves, Provider, Response
from services.auth.repository import saml
from services.auth.usecases.federation import Federation
from services.auth.usecases.security_policies import team_of


class Messages(Protocol):
    """What is read and written as XML (clients/saml_messages.py)."""

    def authn_request(
        self, identifier: str, ourselves: Ourselves, provider: Provider, relay_state: str, issued_at: datetime
    ) -> str: ...

    def own_metadata(self, ourselves: Ourselves) -> bytes: ...

    def read_metadata(self, text: str, now: datetime) -> Provider: ...

    def read_response(self, encoded: str, provider: Provider, now: datetime) -> Response: ...


class SamlConnections:
    """The identity providers of accounts. Owners alone change them: whoever holds one can come in as any member."""

    def __init__(self, db: Database, federation: Federation, clock: WallClock, make: IdSource, url: str) -> None:
        self._db = db
        self._federation = federation
        self._clock = clock
        self._make = make
        self._url = url.rstrip("/")

    def ourselves(self, connection: Connection) -> Ourselves:
        """Returns what a connection's identity provider knows us by."""
        account, own = ids.encode("acct", connection.account), ids.encode("saml", connection.id)
        base = f"{self._url}/v1/saml/{account}/{own}"
        return Ourselves(f"{base}/metadata", f"{base}/acs")

    async def create(self, name: str, metadata: str, chosen: Callable[[Connection], Connection]) -> Connection:
        """Makes a connection; `chosen` adds what was chosen of the rest.

        Raises `forbidden("role_above_own")`, `precondition("team_is_live")`, `precondition("saml_not_installed")`,
        `precondition("saml_connection_exists")`, `invalid("saml_metadata_invalid")`, and as `rules.checked`.
        """
        account = _owners_account()
        provider = await self._provider(metadata)
        fresh = Connection(self._make.new(), account, name, self._clock.wall(), provider)
        made = rules.checked(chosen(fresh))
        async with self._changing(account, "create_saml_connection") as conn:
            await saml.add(conn, made)
        return made

    async def update(self, key: UUID, metadata: str, chosen: Callable[[Connection], Connection]) -> Connection:
        """Changes a connection; sessions that it began end when it is switched off or turned to another provider.

        Raises `not_found("saml_connection_not_found")`, and as `create`.
        """
        account = _owners_account()
        provider = await self._provider(metadata)
        async with self._changing(account, "update_saml_connection") as conn:
            held = await saml.lock(conn, account, key)
            if held is None:
                raise not_found()
            changed = rules.checked(chosen(replace(held, provider=provider) if provider else held))
            await saml.update(conn, changed)
            another = held.provider is not None and held.source.issuer != changed.source.issuer
            if another or (held.enabled and not changed.enabled):
                await self._federation.end_all(conn, account, key, session.PROVIDER_ENDED)
        return changed

    async def delete(self, key: UUID) -> None:
        """Removes a connection and ends the sessions that it began. Raises as `update`."""
        account = _owners_account()
        async with self._changing(account, "delete_saml_connection") as conn:
            if await saml.lock(conn, account, key) is None:
                raise not_found()
            await saml.remove(conn, account, key)
            await self._federation.end_all(conn, account, key, session.PROVIDER_ENDED)

    async def list_connections(self, before: UUID, limit: int) -> list[Connection]:
        """Returns the account's connections, newest first."""
        async with self._db.transaction("find_account", read_only=True) as conn:
            account = await team_of(conn, caller.current().require_account())
        async with self._db.tenant(account, "list_saml_connections", read_only=True) as conn:
            return await saml.page(conn, account, before, limit)

    async def metadata(self, account: UUID, key: UUID) -> bytes:
        """Returns our metadata for a connection; raises `not_found("saml_connection_not_found")`."""
        async with self._db.tenant(account, "read_saml_connection", read_only=True) as conn:
            found = await saml.find(conn, account, key)
        if found is None:
            raise not_found()
        return (await messages()).own_metadata(self.ourselves(found))

    async def _provider(self, metadata: str) -> Provider | None:
        if not metadata:
            return None
        return await asyncio.to_thread((await messages()).read_metadata, metadata, self._clock.wall())

    @asynccontextmanager
    async def _changing(self, account: UUID, label: str) -> AsyncIterator[Conn]:
        try:
            async with self._db.tenant(account, label) as conn:
                yield conn
        except Exception as error:
            if violated(error) == "saml_connection_entity":
                raise errors.precondition(
                    "saml_connection_exists", "There is a connection with this identity provider already."
                ) from error
            raise


async def messages() -> Messages:
    """Returns what reads and writes XML; raises `precondition("saml_not_installed")` without its libraries.

    They are read at the first use: they take some thirty megabytes, and most installations need none of it.
    """
    return await asyncio.to_thread(_messages)


def _messages() -> Messages:
    try:
        from services.auth.clients import saml_messages
    except ImportError:
        raise errors.precondition(
            "saml_not_installed", "This installation has no SAML: its dependency group `saml` is missing."
        ) from None
    return saml_messages


def not_found() -> errors.GatefoldError:
    """Returns the answer to a connection that is unknown, or off."""
    return errors.not_found("saml_connection_not_found", "There is no such connection.")


def _owners_account() -> UUID:
    who = caller.current()
    if who.role != roles.OWNER:
        raise errors.forbidden("role_above_own", "Only an owner of the account may do this.")
    if not who.live:
        raise errors.precondition("team_is_live", "Connections are kept in the live account: change them there.")
    return who.require_account()
