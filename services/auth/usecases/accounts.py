"""Owns accounts: opening one with its test sibling and its owner's invitation, showing and listing them."""

from uuid import UUID

from gatefold.auth.v1 import account_pb2, event_pb2

from libs import caller, errors, idempotency, ids, outbox
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Database
from services.auth.domain import roles
from services.auth.domain.account import Account, open_account
from services.auth.repository import accounts, people
from services.auth.usecases import addresses
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.facts import Facts
from services.auth.usecases.team import Team

_CREATE = "CreateAccount"


class Accounts:
    """The publishers' accounts."""

    def __init__(
        self, db: Database, team: Team, challenges: Challenges, clock: WallClock, make: IdSource, facts: Facts
    ) -> None:
        self._db = db
        self._team = team
        self._challenges = challenges
        self._clock = clock
        self._make = make
        self._facts = facts

    async def create(self, request: account_pb2.CreateAccountRequest) -> Account:
        """Opens a live account and its test sibling, and invites the owner, all at once."""
        who = caller.current()
        address = addresses.checked(request.owner_email, field="owner_email")
        pair = open_account(
            self._make.new(),
            self._make.new(),
            name=request.name,
            time_zone=request.time_zone,
            reader_url=request.reader_url,
            created_at=self._clock.wall(),
        )
        live = pair[0]
        invitation = await self._team.prepare_invitation(live.id, address, roles.OWNER)
        async with self._db.tenant(live.id, "create_account") as conn:
            claim = await idempotency.claim(conn, who, _CREATE, request, clock=self._clock)
            if claim.replay is not None:
                made = ids.decode("acct", account_pb2.Account.FromString(claim.replay).id)
                return _there(await accounts.find(conn, made))
            await accounts.add(conn, pair)
            await people.invite(conn, live.id, invitation.membership, invitation.email_index)
            await self._challenges.store(conn, live.id, invitation.challenge, live=True)
            for account in pair:
                data = event_pb2.AccountCreated(
                    account_id=ids.encode("acct", account.id), sibling_id=ids.encode("acct", account.sibling)
                )
                event = self._facts.make(
                    "account.created", account.id, ("account", account.id), data, live=account.live
                )
                await outbox.append(conn, event=event)
            await idempotency.record(conn, who, _CREATE, account_pb2.Account(id=ids.encode("acct", live.id)))
        return live

    async def show(self) -> Account:
        """Returns the caller's account."""
        account = caller.current().require_account()
        async with self._db.transaction("show_account", read_only=True) as conn:
            return _there(await accounts.find(conn, account))

    async def list_accounts(self, before: UUID, limit: int) -> list[Account]:
        """Returns accounts, newest first."""
        async with self._db.transaction("list_accounts", read_only=True) as conn:
            return await accounts.page(conn, before, limit)


def _there(account: Account | None) -> Account:
    if account is None:
        raise errors.not_found("account_not_found", "There is no such account.")
    return account
