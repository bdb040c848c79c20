"""Owns access tokens: ES256 JWTs of ten minutes (RFC 9068) that the edge checks without asking anybody."""

import jwt

from libs import ids
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import PLATFORM
from services.auth.domain import roles, session
from services.auth.domain.session import Session
from services.auth.usecases.signing_keys import SigningKeys

AUDIENCE = "gatefold"
TYPE = "at+jwt"


class AccessTokens:
    """Signs access tokens."""

    def __init__(self, issuer: str, keys: SigningKeys, clock: WallClock, make: IdSource) -> None:
        self._issuer = issuer
        self._keys = keys
        self._clock = clock
        self._make = make

    async def issue(self, held: Session, role: str | None) -> str:
        """Returns a token for a session; `role` is what the person is now, so a change of role takes ten minutes."""
        kid, private = await self._keys.active()
        now = int(self._clock.wall().timestamp())
        claims: dict[str, object] = {
            "iss": self._issuer,
            "aud": AUDIENCE,
            "sub": principal_id(held),
            "live": held.live,
            "kind": held.kind,
            "scope": " ".join(sorted(roles.scopes_of(role))) if role else "",
            "sid": ids.encode("ses", held.id),
            "acr": held.acr,
            "auth_time": int(held.authenticated_at.timestamp()),
            "iat": now,
            # No token outlives its session.
            "exp": min(now + session.ACCESS_SECONDS, int(held.expires_at.timestamp())),
            "jti": ids.encode("jti", self._make.new()),
        }
        if held.account != PLATFORM:
            claims["account"] = ids.encode("acct", held.account)
        if role:
            claims["role"] = role
        if held.identity is not None:
            claims["federated"] = True
        return jwt.encode(claims, private, algorithm="ES256", headers={"kid": kid, "typ": TYPE})


def principal_id(held: Session) -> str:
    """Returns who is signed in: `subj_…` or `per_…`."""
    return ids.encode("subj" if held.kind == session.SUBSCRIBER else "per", held.principal)
