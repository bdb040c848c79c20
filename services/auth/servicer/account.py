"""Owns gatefold.auth.v1.AccountService."""

from datetime import timedelta

from gatefold.auth.v1 import account_pb2, account_pb2_grpc

from libs import ids
from services.auth.domain.account import Account, SecurityPolicy
from services.auth.servicer import page
from services.auth.usecases.accounts import Accounts
from services.auth.usecases.security_policies import SecurityPolicies
from services.auth.usecases.test_clock import TestClock


class AccountServicer(account_pb2_grpc.AccountServiceServicer):
    """Accounts."""

    def __init__(self, accounts: Accounts, policies: SecurityPolicies, test_clock: TestClock) -> None:
        self._accounts = accounts
        self._policies = policies
        self._test_clock = test_clock

    async def CreateAccount(self, request: account_pb2.CreateAccountRequest, context: object) -> account_pb2.Account:
        """Opens an account."""
        return _account(await self._accounts.create(request))

    async def ListAccounts(
        self, request: account_pb2.ListAccountsRequest, context: object
    ) -> account_pb2.ListAccountsResponse:
        """Lists accounts."""
        limit = page.size(request.limit)
        found = await self._accounts.list_accounts(page.before("acct", request.cursor), limit + 1)
        shown, last = page.cut(found, limit)
        return account_pb2.ListAccountsResponse(
            data=[_account(one) for one in shown], next_cursor=ids.encode("acct", last.id) if last else ""
        )

    async def GetAccount(self, request: account_pb2.GetAccountRequest, context: object) -> account_pb2.Account:
        """Shows the credential's account."""
        return _account(await self._accounts.show())

    async def DescribeAccount(
        self, request: account_pb2.DescribeAccountRequest, context: object
    ) -> account_pb2.Account:
        """Shows the account that a service works for."""
        return _account(await self._accounts.show())

    async def GetSecurityPolicy(
        self, request: account_pb2.GetSecurityPolicyRequest, context: object
    ) -> account_pb2.SecurityPolicy:
        """Shows what the account asks of its team and keys."""
        return _policy(await self._policies.show())

    async def UpdateSecurityPolicy(
        self, request: account_pb2.UpdateSecurityPolicyRequest, context: object
    ) -> account_pb2.SecurityPolicy:
        """Changes what the account asks of its team and keys."""
        factor = request.require_staff_factor if request.HasField("require_staff_factor") else None
        leaked = request.revoke_leaked_keys if request.HasField("revoke_leaked_keys") else None
        sign_in = request.staff_sign_in if request.HasField("staff_sign_in") else None
        return _policy(await self._policies.update(factor, leaked, sign_in))

    async def AdvanceTestClock(
        self, request: account_pb2.AdvanceTestClockRequest, context: object
    ) -> account_pb2.AdvanceTestClockResponse:
        """Moves a test account's clock."""
        # Bounded before it becomes a timedelta, which has a greatest value.
        seconds = max(0, min(request.seconds, 10**9))
        now, drained = await self._test_clock.advance(timedelta(seconds=seconds))
        response = account_pb2.AdvanceTestClockResponse(drained=drained)
        response.now.FromDatetime(now)
        return response


def _policy(policy: SecurityPolicy) -> account_pb2.SecurityPolicy:
    return account_pb2.SecurityPolicy(
        require_staff_factor=policy.require_staff_factor,
        revoke_leaked_keys=policy.revoke_leaked_keys,
        staff_sign_in=policy.staff_sign_in,
    )


def _account(account: Account) -> account_pb2.Account:
    response = account_pb2.Account(
        id=ids.encode("acct", account.id),
        sibling_id=ids.encode("acct", account.sibling),
        live=account.live,
        name=account.name,
        time_zone=account.time_zone,
        reader_url=account.reader_url,
    )
    response.created_at.FromDatetime(account.created_at)
    return response
