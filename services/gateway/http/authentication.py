"""Owns finding out who sent a request: nobody, an API key's account, or the holder of an access token."""

from multidict import istr

from libs import errors
from libs.activity import USER_AGENT_LENGTH
from libs.caller import Caller, CallerKind
from services.gateway.http.api_keys import MARKS, ApiKeys
from services.gateway.http.contracts import Endpoint
from services.gateway.http.cookies import Cookies
from services.gateway.http.exchange import Exchange
from services.gateway.http.tokens import Tokens

_ANONYMOUS = Caller(kind=CallerKind.ANONYMOUS, actor="anonymous")
_AUTHORIZATION, _COOKIE = istr("Authorization"), istr("Cookie")
_BEARER = "Bearer "


class Authentication:
    """Turns the Authorization header (RFC 6750 section 2.1), or a session's cookie, into a caller."""

    def __init__(self, api_keys: ApiKeys, tokens: Tokens, cookies: Cookies) -> None:
        self._api_keys = api_keys
        self._tokens = tokens
        self._cookies = cookies

    def known(self, exchange: Exchange, endpoint: Endpoint) -> Caller | None:
        """Returns the caller of a request that brings nothing, or a credential that is known to be good.

        None for all for which somebody has to be asked or that is refused: `caller` does so.
        """
        headers = exchange.request.headers
        sent = headers.getall(_AUTHORIZATION, ())
        found = None
        if not sent:
            found = _ANONYMOUS if endpoint.anonymous_only or _COOKIE not in headers else None
        elif len(sent) == 1 and not (endpoint.anonymous_only or endpoint.reads_authorization):
            (header,) = sent
            if header.startswith(_BEARER) and header.isascii():
                credential = header[len(_BEARER) :]
                if credential.startswith(MARKS):
                    found = self._api_keys.known(credential)
                else:
                    found = self._tokens.known(credential, exchange.at)
        return None if found is None else _of(found, exchange)

    async def caller(self, exchange: Exchange, endpoint: Endpoint) -> Caller:
        """Returns the caller, with the request's own particulars.

        Where anybody may call, a credential is not looked at, so that a token which has ended does not keep its
        holder from refreshing it; nor where an endpoint reads the header itself, as OAuth's clients send it. Raises
        `unauthenticated` with reason `credential_malformed`, `api_key_invalid`, `access_token_invalid`,
        `access_token_expired`, `session_ended` or `session_cookie_invalid`, and `forbidden` with reason
        `network_not_allowed` for a key that is sent from elsewhere than it may be, or `csrf_refused` for a cookie that
        no page of this origin sent.
        """
        sent = exchange.request.headers.getall("Authorization", [])
        credential = _credential(sent) if sent and not endpoint.reads_authorization else ""
        if endpoint.anonymous_only:
            found = _ANONYMOUS
        elif not credential:
            by_cookie = self._cookies.sent(exchange)
            found = await self._cookies.caller(exchange, endpoint) if by_cookie else _ANONYMOUS
        elif credential.startswith(MARKS):
            found = await self._api_keys.caller(credential, exchange.address, exchange.request_id)
        else:
            found = await self._tokens.caller(credential, exchange.request_id)
        return _of(found, exchange)


def _of(caller: Caller, exchange: Exchange) -> Caller:
    return caller.with_particulars(
        request_id=exchange.request_id,
        idempotency_key=exchange.idempotency_key,
        address=exchange.address or None,
        user_agent=exchange.agent[:USER_AGENT_LENGTH] or None,
        origin=exchange.origin,
    )


def _credential(sent: list[str]) -> str:
    scheme, _, credential = sent[0].partition(" ")
    credential = credential.strip()
    if len(sent) > 1 or scheme.lower() != "bearer" or not credential or not credential.isascii():
        raise errors.unauthenticated(
            "credential_malformed",
            "Send one Authorization header: Bearer, a space, and the key or token.",
            metadata={"error": "invalid_request"},
        )
    return credential
