"""Owns connecting a publisher's account at a payment provider."""

from uuid import UUID

import orjson
from gatefold.billing.v1 import payment_connection_pb2

from libs import idempotency
from libs.caller import Caller
from libs.clock import Clock
from libs.ids import IdSource
from libs.postgres import Database
from libs.vault import Vault
from services.billing.clients import Accounts, StripeProvider
from services.billing.domain.connection import PaymentConnection, check_keys
from services.billing.domain.periods import zone_of
from services.billing.repository.connections import ConnectionRepository
from services.billing.usecases import messages
from services.billing.usecases.collection import CONNECTION_TABLE, SECRET_KEY_FIELD, WEBHOOK_SECRETS_FIELD

_CREATE = "gatefold.billing.v1.PaymentConnectionService/CreatePaymentConnection"


class PaymentConnections:
    """Payment connections; their secrets are written sealed and never answered."""

    def __init__(
        self,
        app: Database,
        repository: ConnectionRepository,
        provider: StripeProvider,
        accounts: Accounts,
        vault: Vault,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._app = app
        self._at = repository
        self._provider = provider
        self._accounts = accounts
        self._vault = vault
        self._clock = clock
        self._ids = ids

    async def create(
        self, caller: Caller, request: payment_connection_pb2.CreatePaymentConnectionRequest
    ) -> payment_connection_pb2.PaymentConnection:
        """Checks the keys with Stripe and stores them sealed.

        Raises `invalid("key_mode_mismatch")` for live keys in a test account and the other way round,
        `invalid("secret_key_refused")` for a key that Stripe does not accept.
        """
        account = caller.require_account()
        check_keys(caller.live, request.publishable_key, request.secret_key, request.webhook_secret)
        provider_account = await self._provider.account_of(request.secret_key)
        time_zone = await self._accounts.time_zone()
        zone_of(time_zone)
        cipher = await self._vault.account_cipher(account)
        new_id = self._ids.new()
        secrets = orjson.dumps([request.webhook_secret])
        connection = PaymentConnection(
            id=new_id,
            live=caller.live,
            provider_account=provider_account,
            publishable_key=request.publishable_key,
            time_zone=time_zone,
            created_at=self._clock.now(account),
            secret_key_sealed=cipher.seal(CONNECTION_TABLE, SECRET_KEY_FIELD, new_id, request.secret_key.encode()),
            webhook_secrets_sealed=cipher.seal(CONNECTION_TABLE, WEBHOOK_SECRETS_FIELD, new_id, secrets),
        )
        async with self._app.tenant(account, "create_payment_connection") as conn:
            claim = await idempotency.claim(conn, caller, _CREATE, request, clock=self._clock)
            if claim.replay is not None:
                return payment_connection_pb2.PaymentConnection.FromString(claim.replay)
            await self._at.add(conn, account, connection)
            answer = messages.connection(connection)
            await idempotency.record(conn, caller, _CREATE, answer)
        return answer

    async def list_all(self, account: UUID) -> payment_connection_pb2.ListPaymentConnectionsResponse:
        """Returns the connections, newest first, without their secrets."""
        async with self._app.tenant(account, "list_payment_connections", read_only=True) as conn:
            found = await self._at.list_all(conn, account)
        return payment_connection_pb2.ListPaymentConnectionsResponse(data=[messages.connection(each) for each in found])
