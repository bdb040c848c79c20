"""Owns what browsers do at the OpenID Connect provider: what a client asks, what the reader decides, signing out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from libs import caller, errors, ids
from libs.caller import Caller
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Connection, Database
from services.auth.domain import oauth as rules
from services.auth.domain import session
from services.auth.domain.account import Account
from services.auth.domain.oauth import Asked, Authorization, Client, RedirectableError, Request
from services.auth.domain.session import Session
from services.auth.repository import accounts, oauth, oauth_clients, sessions
from services.auth.usecases import doors
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.oauth_clients import OAuthClients
from services.auth.usecases.oauth_tokens import OAuthTokens
from services.auth.usecases.registration import Registration
from services.auth.usecases.sessions import Pair
from services.auth.usecases.sign_in import Waiting

_SECRET_BYTES = 32
_MOST_CONSENTS = 100


@dataclass(frozen=True, repr=False)
class Begun:
    """What the hosted page shows, or where it sends the browser at once."""

    location: str = ""
    handle: str = ""
    publication: str = ""
    client: Client | None = None
    request: Request | None = None


@dataclass(frozen=True, repr=False)
class Decided:
    """Where the browser goes, or what is missing."""

    location: str = ""
    missing: str = ""
    email: str = ""


class OAuth:
    """What browsers and readers do."""

    def __init__(
        self,
        db: Database,
        clients: OAuthClients,
        tokens: OAuthTokens,
        registration: Registration,
        challenges: Challenges,
        issuer: str,
        clock: WallClock,
        make: IdSource,
        randomness: Callable[[int], bytes],
    ) -> None:
        self._db = db
        self._clients = clients
        self._tokens = tokens
        self._registration = registration
        self._challenges = challenges
        self._issuer = issuer
        self._clock = clock
        self._make = make
        self._randomness = randomness

    async def begin(self, client_id: str, redirect_uri: str, asked: Asked) -> Begun:
        """Takes what a client sent a browser with.

        Raises `not_found("oauth_client_unknown")` and `invalid("redirect_uri_mismatch")`, which are shown where the
        browser is: nothing is sent to an address that is not the client's own.
        """
        client = await self._clients.find(client_id)
        if client is None:
            raise errors.not_found("oauth_client_unknown", "The site or app that sent you here is not known.")
        if redirect_uri not in client.redirect_uris:
            raise errors.invalid(
                "redirect_uri_mismatch", "The site or app sent an address that is not one of its own.", field=""
            )
        now = self._clock.wall()
        try:
            request = rules.judged(asked, client, redirect_uri, key=self._make.new(), now=now)
        except RedirectableError as error:
            back = {"error": error.error, "error_description": error.description}
            return Begun(location=self._back(redirect_uri, asked.state, back))
        secret = self._randomness(_SECRET_BYTES)
        async with self._db.tenant(client.account, "begin_authorization") as conn:
            await oauth.add_request(conn, request, rules.hash_of(secret))
        publisher = await self._publisher(client.account)
        return Begun(handle=rules.handle(request, secret), publication=publisher.name, client=client, request=request)

    async def sign_in(self, handle: str, email: str, password: str, device_token: str) -> Pair | Waiting:
        """Signs a reader of the client's account in; raises as `Registration.sign_in`, and for an unknown handle."""
        account, key, hashed = _place(handle)
        async with self._db.tenant(account, "read_authorization_request") as conn:
            await self._request(conn, account, key, hashed)
        publisher = await self._publisher(account)
        who: Caller = caller.current()
        with caller.serving(replace(who, account=account, live=publisher.live)):
            return await self._registration.sign_in(email, password, device_token)

    async def authorize(self, handle: str, *, agreed: bool) -> Decided:
        """Gives the client a code, or says what is missing; raises `invalid("authorization_request_invalid")`.

        An agreement counts from the session that was shown what is asked for; another one goes on only when its reader
        has signed in since.
        """
        who, now = caller.current(), self._clock.wall()
        subject, (account, key, hashed) = who.require_subject(), _place(handle)
        async with self._db.tenant(account, "authorize") as conn:
            request = await self._request(conn, account, key, hashed)
            client = await oauth_clients.find(conn, account, request.client)
            if client is None or not client.enabled or request.redirect_uri not in client.redirect_uris:
                raise _invalid()
            held = await self._session(conn, who, account, now)
            if held is None:
                return await self._lacks(conn, request, rules.SIGN_IN)
            known = await oauth.consented(conn, account, subject, client.id)
            shown = request.session == held.id
            strange = request.session is not None and held.authenticated_at < request.created_at
            if not shown and (agreed or strange):
                # Somebody else's request, in whoever's browser this is.
                raise _invalid()
            lacks = rules.missing(
                request,
                client,
                known,
                acr=held.acr,
                authenticated_at=held.authenticated_at,
                agreed=agreed,
                now=now,
            )
            if lacks is not None:
                if lacks == rules.CONSENT:
                    await oauth.show_request(conn, account, key, held.id)
                decided = await self._lacks(conn, request, lacks)
            else:
                if not client.first_party or agreed:
                    scopes = request.scopes
                    await oauth.consent(conn, account, self._make.new(), subject, client.id, scopes, now)
                decided = await self._give(conn, request, held, now)
        if decided.missing == rules.CONSENT:
            email, _ = await self._challenges.contact(doors.own())
            return replace(decided, email=email)
        return decided

    async def refuse(self, handle: str) -> Decided:
        """Sends the browser back without a code; raises `invalid("authorization_request_invalid")`."""
        account, key, hashed = _place(handle)
        async with self._db.tenant(account, "refuse_authorization") as conn:
            request = await self._request(conn, account, key, hashed)
            await oauth.remove_request(conn, account, key)
        if rules.NONE in request.prompts:
            return self._failed(request, "login_required", "Nobody is signed in.")
        return self._failed(request, "access_denied", "The reader does not want to.")

    async def begin_logout(
        self, hint: str, client_id: str, redirect_uri: str, state: str
    ) -> tuple[str, Client | None, str]:
        """Returns publication, client and where to go after a sign-out, as far as they are known.

        The address must be one of the client that a hint was issued to, or that names itself. Raises
        `invalid("redirect_uri_mismatch")`.
        """
        hinted = await self._tokens.hinted_client(hint) if hint else ""
        if hint and client_id and hinted and hinted != client_id:
            raise errors.invalid("redirect_uri_mismatch", "This sign-out is of another site or app.", field="")
        client = await self._clients.find(hinted or client_id)
        if redirect_uri and (client is None or redirect_uri not in client.post_logout_redirect_uris):
            raise errors.invalid(
                "redirect_uri_mismatch", "The site or app sent an address that is not one of its own.", field=""
            )
        if client is None:
            return "", None, ""
        publisher = await self._publisher(client.account)
        place = rules.location(redirect_uri, {"state": state}) if redirect_uri else ""
        return publisher.name, client, place

    async def consents(self) -> list[tuple[UUID, str, tuple[str, ...], datetime]]:
        """Returns the caller's consents, newest first: client, its name, scopes, since when."""
        door = doors.own()
        async with self._db.tenant(door.account, "list_consents", read_only=True) as conn:
            return await oauth.consents(conn, door.account, door.principal, _MOST_CONSENTS)

    async def revoke_consent(self, client: UUID) -> None:
        """Takes a consent back, and ends what the client holds for the caller; repeating it is harmless."""
        door = doors.own()
        async with self._db.tenant(door.account, "revoke_consent") as conn:
            await oauth.remove_consent(conn, door.account, door.principal, client)
            await oauth.revoke_of(
                conn, door.account, client, self._clock.wall(), rules.CONSENT_REVOKED, subject=door.principal
            )

    async def _session(self, conn: Connection, who: Caller, account: UUID, now: datetime) -> Session | None:
        if who.account != account or who.session is None:
            return None
        held = await sessions.lock(conn, account, who.session)
        return None if held is None or session.over(held, now) else held

    async def _give(self, conn: Connection, request: Request, held: Session, now: datetime) -> Decided:
        secret = self._randomness(_SECRET_BYTES)
        given = Authorization(
            id=self._make.new(),
            account=request.account,
            client=request.client,
            subject=held.principal,
            session=held.id,
            scopes=request.scopes,
            redirect_uri=request.redirect_uri,
            nonce=request.nonce,
            code_challenge=request.code_challenge,
            code_expires_at=now + rules.CODE_LIFETIME,
            acr=held.acr,
            authenticated_at=held.authenticated_at,
            salt=self._randomness(rules.SALT_BYTES),
            generation=1,
            rotated_at=now,
            created_at=now,
            expires_at=held.expires_at,
        )
        await oauth.add(conn, given, rules.hash_of(secret))
        await oauth.remove_request(conn, request.account, request.id)
        code = rules.code(given.account, given.id, secret)
        return Decided(location=self._back(request.redirect_uri, request.state, {"code": code}))

    async def _lacks(self, conn: Connection, request: Request, lacks: str) -> Decided:
        if rules.NONE not in request.prompts:
            return Decided(missing=lacks)
        await oauth.remove_request(conn, request.account, request.id)
        if lacks == rules.SIGN_IN:
            return self._failed(request, "login_required", "The reader has to sign in.")
        return self._failed(request, "consent_required", "The reader has to agree.")

    def _failed(self, request: Request, error: str, description: str) -> Decided:
        back = {"error": error, "error_description": description}
        return Decided(location=self._back(request.redirect_uri, request.state, back))

    def _back(self, redirect_uri: str, state: str, parameters: dict[str, str]) -> str:
        return rules.location(redirect_uri, {**parameters, "state": state, "iss": self._issuer})

    async def _request(self, conn: Connection, account: UUID, key: UUID, hashed: bytes) -> Request:
        found = await oauth.lock_request(conn, account, key, hashed, self._clock.wall())
        if found is None:
            raise _invalid()
        return found

    async def _publisher(self, account: UUID) -> Account:
        async with self._db.transaction("find_account", read_only=True) as conn:
            found = await accounts.find(conn, account)
        if found is None:
            raise errors.not_found("oauth_client_unknown", "The site or app that sent you here is not known.")
        return found


def client_id(client: UUID) -> str:
    """Returns a client's identifier, `cli_…`."""
    return ids.encode("cli", client)


def _place(handle: str) -> tuple[UUID, UUID, bytes]:
    found = rules.read_handle(handle)
    if found is None:
        raise _invalid()
    return found


def _invalid() -> errors.GatefoldError:
    return errors.invalid(
        "authorization_request_invalid", "This sign-in is over; go back to the site or app and start again.", field=""
    )
