"""Owns what an account asks of its team and keys: kept in the live account, for its test sibling too."""

from uuid import UUID

from libs import caller, errors
from libs.clock import WallClock
from libs.postgres import Connection, Database, as_tenant
from services.auth.domain import session
from services.auth.domain.account import PROVIDER_ONLY, SecurityPolicy
from services.auth.repository import accounts, people, security_policies, sessions


class SecurityPolicies:
    """The accounts' policies."""

    def __init__(self, db: Database, clock: WallClock) -> None:
        self._db = db
        self._clock = clock

    async def show(self) -> SecurityPolicy:
        """Returns the policy of the caller's account."""
        return await self.of(caller.current().require_account())

    async def update(
        self, require_staff_factor: bool | None, revoke_leaked_keys: bool | None, staff_sign_in: str | None
    ) -> SecurityPolicy:
        """Sets what is given; `precondition("policy_is_live")` from the test account.

        Sessions that began another way than the account now allows end, but those of owners.
        """
        who = caller.current()
        account = who.require_account()
        if not who.live:
            raise errors.precondition("policy_is_live", "The policy is kept in the live account: change it there.")
        async with self._db.tenant(account, "update_security_policy") as conn:
            now = self._clock.wall()
            await security_policies.update(conn, account, require_staff_factor, revoke_leaked_keys, staff_sign_in, now)
            if staff_sign_in == PROVIDER_ONLY:
                owners = await people.owners_of(conn, account)
                found = await accounts.find(conn, account)
                for place in (account, found.sibling) if found else (account,):
                    async with as_tenant(conn, place):
                        await sessions.revoke_unfederated(conn, place, owners, now, session.PROVIDER_REQUIRED)
            return await security_policies.find(conn, account)

    async def of(self, account: UUID) -> SecurityPolicy:
        """Returns the policy that counts for an account, live or test."""
        async with self._db.transaction("find_account", read_only=True) as conn:
            team = await team_of(conn, account)
        async with self._db.tenant(team, "read_security_policy", read_only=True) as conn:
            return await security_policies.find(conn, team)


async def team_of(conn: Connection, account: UUID) -> UUID:
    """Returns the live account that keeps team and policy; raises `not_found("account_not_found")`."""
    found = await accounts.find(conn, account)
    if found is None:
        raise errors.not_found("account_not_found", "There is no such account.")
    return found.team
