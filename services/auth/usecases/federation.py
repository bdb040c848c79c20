"""Owns the one end of every sign-in with another provider: whose identity it is, or whose it may become."""

from uuid import UUID

from libs.postgres import Connection
from services.auth.domain.federation import Source, Statement
from services.auth.domain.sign_in import Door
from services.auth.usecases.sessions import Pair
from services.auth.usecases.sign_in import Waiting, Write


class Federation:
    """Identities of readers and staff at others. Known by account, issuer and subject, never by an address."""

    async def enter(
        self, source: Source, statement: Statement, account: UUID, still: Write, *, live: bool
    ) -> Pair | Waiting:
        """Signs in whoever the provider speaks of, into `account` (the source's own, or its test sibling for staff).

        `still` runs in the transaction that begins the session, in the tenant of `source.account`: it raises when the
        provider may be used no longer, and keeps it from being switched off meanwhile (SELECT … FOR SHARE).
        """
        raise NotImplementedError

    async def link(self, door: Door, source: Source, statement: Statement, still: Write) -> None:
        """Makes the identity one of whoever is signed in through `door`."""
        raise NotImplementedError

    async def end_all(self, conn: Connection, source: UUID, reason: str) -> None:
        """Ends the sessions that a provider began, and sign-ins that wait; in the transaction that switches it off.

        The transaction is that of the account which keeps the provider, after its row was changed.
        """
        raise NotImplementedError
