"""Owns the way to an OpenID provider and back: sending a browser away, knowing it again, believing what it brings."""

import base64
import binascii
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode
from uuid import UUID

from libs import caller, errors, ids
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import Connection, Database
from services.auth.clients.openid import CodeRefusedError, OpenIdProviders
from services.auth.clients.provider_http import AwayError, ForbiddenAddressError
from services.auth.domain import challenge, openid, session
from services.auth.domain.federation import READERS, STAFF, Away, Identity, Source, Statement
from services.auth.domain.openid import Provider, RefusedError
from services.auth.domain.sign_in import Door
from services.auth.repository import accounts, identities, identity_providers
from services.auth.usecases import doors
from services.auth.usecases.factor_access import FactorAccess
from services.auth.usecases.federation import Federation
from services.auth.usecases.identity_providers import IdentityProviders, provider_not_found, still_enabled
from services.auth.usecases.secrets import TokenSecrets
from services.auth.usecases.sessions import Pair
from services.auth.usecases.sign_in import Waiting, Write

FORM_POST = "/v1/federated_sessions/form_post"
_MARK = "gfst_"
_MAC_BYTES = 32
_MOST_CHOICES = 20


@dataclass(frozen=True, repr=False)
class Departure:
    """Where a browser is sent, and what it keeps to be known by; never shown as a whole."""

    url: str
    browser_secret: str
    expires_at: datetime


@dataclass(frozen=True, repr=False)
class Answer:
    """What a browser brings back from a provider, as it came; never shown."""

    state: str
    code: str
    issuer: str
    page: str
    """To which it came back; empty where that is not said."""


class FederatedSignIns:
    """Sign-ins at OpenID providers, and identities that are added there."""

    def __init__(
        self,
        db: Database,
        providers: IdentityProviders,
        openid_providers: OpenIdProviders,
        federation: Federation,
        access: FactorAccess,
        secrets: TokenSecrets,
        clock: WallClock,
        make: IdSource,
        randomness: Callable[[int], bytes],
        public_api: str,
    ) -> None:
        self._db = db
        self._providers = providers
        self._openid = openid_providers
        self._federation = federation
        self._access = access
        self._secret = secrets.federation
        self._clock = clock
        self._make = make
        self._randomness = randomness
        self._form_post = public_api.rstrip("/") + FORM_POST

    async def begin(self, provider: UUID, redirect_uri: str) -> Departure:
        """Sends a reader's browser to a provider of the caller's account.

        Raises `not_found("provider_not_found")`, `invalid("redirect_uri_not_allowed")` and as `_told`.
        """
        who = caller.current()
        account = who.require_account()
        return await self._depart(account, provider, READERS, redirect_uri, account, live=who.live)

    async def begin_staff(self, account: UUID, provider: UUID | None, redirect_uri: str) -> Departure:
        """Sends a browser of somebody who works for an account to its provider; raises as `begin`.

        Raises `invalid("provider_ambiguous")` where none is named and there are several.
        """
        async with self._db.transaction("find_account", read_only=True) as conn:
            place = await accounts.find(conn, account)
        if place is None:
            raise provider_not_found()
        chosen = provider or await self._only(place.team)
        return await self._depart(place.team, chosen, STAFF, redirect_uri, place.id, live=place.live)

    async def begin_link(self, provider: UUID, redirect_uri: str) -> Departure:
        """Sends the browser of somebody who is signed in to a provider, to add the identity there.

        Raises as `begin` and as `FactorAccess.require`.
        """
        door, held = doors.own(), caller.current().session
        await self._access.require(door)
        keeper, audience = await self.keeper(door)
        return await self._depart(
            keeper, provider, audience, redirect_uri, door.account, live=door.live, owner=(door.principal, held)
        )

    async def finish(self, answer: Answer, browser_secret: str) -> Pair | Waiting:
        """Signs in whoever comes back, once, in the browser that was sent away.

        Raises `unauthenticated` with reason `federated_state_invalid`, `issuer_mismatch`, `code_refused` or
        `id_token_invalid`, `not_found("provider_not_found")`, `unavailable("provider_unavailable")`, and as
        `Federation.enter`.
        """
        keeper, away = await self._back(answer.state, browser_secret, None, None)
        source, statement = await self._told(keeper, away, answer)
        return await self._federation.enter(source, statement, away.place, self._still(source), live=away.live)

    async def finish_link(self, answer: Answer, browser_secret: str) -> Identity:
        """Adds the identity to whoever asked for it, in the session and the browser that they asked in.

        Raises as `finish` up to the provider's word, then as `Federation.link`.
        """
        door = doors.own()
        keeper, away = await self._back(answer.state, browser_secret, door.principal, caller.current().session)
        source, statement = await self._told(keeper, away, answer)
        return await self._federation.link(door, source, statement, self._still(source))

    async def page_of(self, state: str, answer: dict[str, str]) -> str:
        """Returns the page that a browser goes on to whose provider has it post a form, with what was posted in its
        fragment: that reaches no server and no Referer.

        Nothing is spent; the page has what the browser kept. Raises `unauthenticated("federated_state_invalid")`.
        """
        place = self._read(state)
        if place is None:
            raise _state_invalid()
        account, key = place
        async with self._db.tenant(account, "find_federated_sign_in", read_only=True) as conn:
            away = await identities.find_away(conn, account, key, self._clock.wall())
        if away is None:
            raise _state_invalid()
        return f"{away.redirect_uri}#{urlencode({'state': state, **answer})}"

    async def keeper(self, door: Door) -> tuple[UUID, str]:
        """Returns the account that keeps somebody's identities, and whose providers they are for."""
        if door.kind == session.SUBSCRIBER:
            return door.account, READERS
        async with self._db.transaction("find_account", read_only=True) as conn:
            place = await accounts.find(conn, door.account)
        if place is None:
            raise provider_not_found()
        return place.team, STAFF

    async def _only(self, account: UUID) -> UUID:
        async with self._db.tenant(account, "offered_providers", read_only=True) as conn:
            offered = await identity_providers.enabled(conn, account, STAFF, _MOST_CHOICES)
        if not offered:
            raise provider_not_found()
        if len(offered) > 1:
            choices = ", ".join(f"{ids.encode('idp', one.id)} ({one.name})" for one in offered)
            raise errors.invalid(
                "provider_ambiguous", f"The account has several providers: say which of {choices}.", field="provider_id"
            )
        return offered[0].id

    async def _depart(
        self,
        keeper: UUID,
        key: UUID,
        audience: str,
        redirect_uri: str,
        place: UUID,
        *,
        live: bool,
        owner: tuple[UUID | None, UUID | None] = (None, None),
    ) -> Departure:
        provider = await self._usable(keeper, key)
        if provider.audience != audience:
            raise provider_not_found()
        # To the letter: any other page could be somebody else's (RFC 9700, 2.1).
        if redirect_uri not in provider.redirect_uris:
            raise errors.invalid(
                "redirect_uri_not_allowed", "This page is not among the provider's.", field="redirect_uri"
            )
        try:
            at = await self._openid.discover(provider)
        except (AwayError, ForbiddenAddressError, RefusedError) as error:
            raise _unavailable() from error
        secret = challenge.browser_secret(self._randomness(challenge.BROWSER_SECRET_BYTES))
        away = Away(
            id=self._make.new(),
            provider=provider.id,
            place=place,
            live=live,
            redirect_uri=redirect_uri,
            browser_hash=challenge.hash_of(secret),
            expires_at=self._clock.wall() + openid.LIFETIME,
            principal=owner[0],
            session=owner[1],
        )
        async with self._db.tenant(keeper, "begin_federated_sign_in") as conn:
            await identities.send_away(conn, keeper, away)
        url = openid.authorization_url(
            provider,
            at,
            state=self._state(keeper, away.id),
            nonce=self._derived(b"nonce", away.id),
            challenge=openid.code_challenge(self._derived(b"verifier", away.id)),
            redirect_uri=self._redirect(provider, away),
        )
        return Departure(url, secret, away.expires_at)

    async def _back(
        self, state: str, browser_secret: str, principal: UUID | None, held: UUID | None
    ) -> tuple[UUID, Away]:
        """Takes a browser that comes back, once: before its code is sent anywhere, and no other browser's."""
        place = self._read(state)
        if place is not None:
            keeper, key = place
            kept = challenge.hash_of(browser_secret)
            async with self._db.tenant(keeper, "take_federated_sign_in") as conn:
                away = await identities.come_back(
                    conn, keeper, key, kept, self._clock.wall(), principal=principal, session=held
                )
            if away is not None:
                return keeper, away
        raise _state_invalid()

    async def _told(self, keeper: UUID, away: Away, answer: Answer) -> tuple[Source, Statement]:
        """Returns what the provider says of who signed in there, and what the account believes of it."""
        provider = await self._usable(keeper, away.provider)
        try:
            at = await self._openid.discover(provider)
            elsewhere = answer.page not in ("", away.redirect_uri)
            if elsewhere or not openid.answered_by(provider, at, answer.issuer):
                # The code may be another provider's: this one must not get it (RFC 9207, 2.4; RFC 9700, 4.4.2).
                raise errors.unauthenticated("issuer_mismatch", "This is the answer of another provider.")
            answered = await self._openid.exchange(
                provider,
                await self._providers.credentials(keeper, provider.id),
                code=answer.code,
                verifier=self._derived(b"verifier", away.id),
                nonce=self._derived(b"nonce", away.id),
                redirect_uri=self._redirect(provider, away),
            )
        except CodeRefusedError as error:
            raise errors.unauthenticated("code_refused", "The provider does not take the code.") from error
        except RefusedError as error:
            raise errors.unauthenticated(
                "id_token_invalid", f"What the provider says cannot be relied on: {error}."
            ) from error
        except (AwayError, ForbiddenAddressError) as error:
            raise _unavailable() from error
        return provider.source(keeper, answered.issuer), openid.statement(provider, answered.claims)

    async def _usable(self, account: UUID, key: UUID) -> Provider:
        async with self._db.tenant(account, "find_identity_provider", read_only=True) as conn:
            found = await identity_providers.find(conn, account, key)
        if found is None or not found.enabled:
            raise provider_not_found()
        return found

    def _still(self, source: Source) -> Write:
        async def still(conn: Connection) -> None:
            await still_enabled(conn, source.account, source.id)

        return still

    def _redirect(self, provider: Provider, away: Away) -> str:
        return self._form_post if provider.posts_form else away.redirect_uri

    def _derived(self, use: bytes, key: UUID) -> str:
        """Returns 256 bits that only this service can make of a row that everybody may know."""
        return base64.urlsafe_b64encode(hmac.digest(self._secret, use + key.bytes, "sha256")).rstrip(b"=").decode()

    def _state(self, account: UUID, key: UUID) -> str:
        head = account.bytes + key.bytes
        return _MARK + base64.urlsafe_b64encode(head + self._mac(head)).rstrip(b"=").decode()

    def _read(self, state: str) -> tuple[UUID, UUID] | None:
        text = state.removeprefix(_MARK)
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        head, mac = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if text == state or not hmac.compare_digest(self._mac(head), mac):
            return None
        return UUID(bytes=head[:16]), UUID(bytes=head[16:])

    def _mac(self, head: bytes) -> bytes:
        return hmac.digest(self._secret, b"state" + head, "sha256")


def _state_invalid() -> errors.GatefoldError:
    return errors.unauthenticated(
        "federated_state_invalid", "This sign-in is over, or began in another browser; start again."
    )


def _unavailable() -> errors.GatefoldError:
    return errors.unavailable("provider_unavailable", "The provider does not answer; try again, or another way.", 5)
