"""Owns signing staff in by SAML: the redirect, the response, and the page that finishes where it began."""

import asyncio
import base64
import hmac
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from libs import errors, ids
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Connection as Conn
from libs.postgres import Database
from libs.telemetry import Telemetry
from services.auth.domain import challenge
from services.auth.domain import saml as rules
from services.auth.domain.federation import Statement
from services.auth.domain.saml import Connection, Provider, SignIn, refused
from services.auth.repository import accounts, saml
from services.auth.usecases import doors
from services.auth.usecases.challenges import token_invalid
from services.auth.usecases.factor_access import FactorAccess
from services.auth.usecases.federation import Federation
from services.auth.usecases.saml_connections import SamlConnections, messages, not_found
from services.auth.usecases.sessions import Pair
from services.auth.usecases.sign_in import Waiting, Write

PURPOSE = "saml"
_SECRET_BYTES = 32
_NONCE_BYTES = 12


class SamlSignIn:
    """Sign-ins by SAML. What the browser keeps that began, it alone can finish."""

    def __init__(
        self,
        db: Database,
        connections: SamlConnections,
        federation: Federation,
        access: FactorAccess,
        clock: WallClock,
        make: IdSource,
        randomness: Callable[[int], bytes],
        telemetry: Telemetry,
        public_url: str,
    ) -> None:
        self._db = db
        self._connections = connections
        self._federation = federation
        self._access = access
        self._clock = clock
        self._make = make
        self._randomness = randomness
        self._page = public_url.rstrip("/") + "/sign-in/callback"
        self._log = telemetry.logger("saml")
        self._refused = telemetry.counter("saml_refusals", "SAML responses that were refused, by the rule.", ("rule",))

    async def begin(self, account: UUID, key: UUID) -> tuple[SignIn, str, str]:
        """Returns a sign-in into an account, where to send the browser, and what it is to keep.

        Raises `not_found("saml_connection_not_found")`, and `precondition("saml_not_installed")`.
        """
        async with self._db.transaction("find_account", read_only=True) as conn:
            opened = await accounts.find(conn, account)
        if opened is None:
            raise not_found()
        connection, provider = await self._usable(opened.team, key)
        now = self._clock.wall()
        secret = challenge.browser_secret(self._randomness(challenge.BROWSER_SECRET_BYTES))
        relay_state = base64.urlsafe_b64encode(self._randomness(_SECRET_BYTES)).rstrip(b"=").decode()
        sign_in = SignIn(
            self._make.new(), key, account, opened.live, now + rules.SIGN_IN_LIFETIME, challenge.hash_of(secret)
        )
        url = (await messages()).authn_request(
            sign_in.request_id, self._connections.ourselves(connection), provider, relay_state, now
        )
        async with self._db.tenant(connection.account, "begin_saml_sign_in") as conn:
            await saml.begin(conn, connection.account, sign_in, rules.hash_of(relay_state))
        return sign_in, url, secret

    async def take(self, account: UUID, key: UUID, encoded: str, relay_state: str) -> str:
        """Takes a response, once, and returns the page that finishes, with its token.

        Raises `malformed("saml_response_refused")`, and as `begin`.
        """
        connection, provider = await self._usable(account, key)
        try:
            return await self._take(connection, provider, encoded, relay_state)
        except errors.GatefoldError as error:
            rule = error.metadata.get("rule")
            if rule is not None:
                self._refused.labels(rule).inc()
                self._log.warning(
                    "a SAML response was refused", extra={"connection": ids.encode("saml", key), "rule": rule}
                )
            raise

    async def finish(self, token: str, browser_secret: str) -> Pair | Waiting:
        """Signs in with the token of the page, in the browser that began, once.

        Raises `not_found("token_invalid")`, and as `Federation.enter`.
        """
        sign_in, connection, said = await self._handed_over(token, browser_secret)
        still = self._spending(sign_in, connection)
        return await self._federation.enter(connection.source, said, sign_in.account, still, live=sign_in.live)

    async def link(self, token: str, browser_secret: str) -> None:
        """Adds whoever the provider speaks of to the sign-in of the member who began in this browser, once.

        Raises as `finish`, as `FactorAccess.require` and as `Federation.link`.
        """
        door = doors.own()
        await self._access.require(door)
        sign_in, connection, said = await self._handed_over(token, browser_secret)
        if sign_in.browser_hash is None or sign_in.account != door.account:
            # What nobody asked for may be anybody's.
            raise token_invalid()
        await self._federation.link(door, connection.source, said, self._spending(sign_in, connection))

    async def _handed_over(self, token: str, browser_secret: str) -> tuple[SignIn, Connection, Statement]:
        account = rules.handover_account(token)
        if account is None:
            raise token_invalid()
        async with self._db.tenant(account, "find_saml_sign_in", read_only=True) as conn:
            found = await saml.handed_over(conn, account, rules.hash_of(token), self._clock.wall())
            connection = await saml.find(conn, account, found[0].connection) if found else None
        if found is None or connection is None:
            raise token_invalid()
        sign_in, sealed = found
        kept = challenge.hash_of(browser_secret)
        if sign_in.browser_hash is not None and not hmac.compare_digest(sign_in.browser_hash, kept):
            raise token_invalid()
        if not connection.enabled:
            raise not_found()
        opened = _cipher(token).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
        return sign_in, connection, Statement(**orjson.loads(opened))

    def _spending(self, sign_in: SignIn, connection: Connection) -> Write:
        """Returns what spends the token, while the connection is on and as it was."""

        async def spend(conn: Conn) -> None:
            if await saml.hold(conn, connection.account, connection.id) != connection:
                raise not_found()
            if not await saml.finish(conn, connection.account, sign_in.id):
                raise token_invalid()

        return spend

    async def _take(self, connection: Connection, provider: Provider, encoded: str, relay_state: str) -> str:
        account, now = connection.account, self._clock.wall()
        async with self._db.tenant(account, "find_saml_sign_in", read_only=True) as conn:
            begun = await saml.begun(conn, account, connection.id, rules.hash_of(relay_state), now)
        if begun is None and not connection.unsolicited:
            raise refused("relay_state", "Nobody waits for this response, or no longer: sign in anew.")
        response = await asyncio.to_thread((await messages()).read_response, encoded, provider, now)
        request = begun.request_id if begun else None
        until = rules.judge(response, provider, self._connections.ourselves(connection), request, now)
        said = rules.statement(response.assertion, connection)
        token = rules.handover(account, self._randomness(_SECRET_BYTES))
        ends = now + rules.HANDOVER_LIFETIME
        fresh = SignIn(self._make.new(), connection.id, account, live=True, expires_at=ends)
        if begun is not None:
            fresh = replace(begun, id=fresh.id, expires_at=ends)
        nonce = self._randomness(_NONCE_BYTES)
        sealed = nonce + _cipher(token).encrypt(nonce, orjson.dumps(said), None)
        async with self._db.tenant(account, "take_saml_response") as conn:
            if await saml.hold(conn, account, connection.id) != connection:
                raise not_found()
            if begun is not None and not await saml.take_begun(conn, account, begun.id):
                raise refused("relay_state", "This sign-in was answered already.")
            if not await saml.remember(conn, account, connection.id, rules.hash_of(response.assertion.id), until):
                raise refused("replayed", "This assertion was used already.")
            await saml.hand_over(conn, account, fresh, rules.hash_of(token), sealed)
        return challenge.fragment_link(self._page, PURPOSE, token)

    async def _usable(self, account: UUID, key: UUID) -> tuple[Connection, Provider]:
        async with self._db.tenant(account, "read_saml_connection", read_only=True) as conn:
            found = await saml.find(conn, account, key)
        if found is None or not found.enabled or found.provider is None:
            raise not_found()
        return found, found.provider


def _cipher(token: str) -> AESGCM:
    """Returns what seals a statement under the token: the database alone, which keeps a hash of it, opens nothing."""
    return AESGCM(hmac.digest(token.encode(), b"gatefold/auth/saml statement", "sha256"))
