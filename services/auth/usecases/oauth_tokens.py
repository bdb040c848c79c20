"""Owns what clients do at the OpenID Connect provider: tokens for codes, what they open, their end."""

from dataclasses import dataclass
from typing import Any

import jwt
from authlib.oauth2.rfc6749.util import extract_basic_authorization
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core.util import create_half_hash
from jwt.algorithms import ECAlgorithm

from libs import caller, errors, ids
from libs.clock import WallClock
from libs.errors import GatefoldError
from libs.ids import IdSource
from libs.postgres import Database
from libs.telemetry import Telemetry
from services.auth.clients.peers import Subjects
from services.auth.domain import oauth as rules
from services.auth.domain import session
from services.auth.domain.oauth import Authorization, Client
from services.auth.domain.session import Answer
from services.auth.domain.sign_in import Door
from services.auth.repository import accounts, oauth
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.oauth_clients import OAuthClients
from services.auth.usecases.secrets import TokenSecrets
from services.auth.usecases.signing_keys import SigningKeys

ALGORITHM = "ES256"
ACCESS_TYPE = "at+jwt"
ID_TYPE = "JWT"


@dataclass(frozen=True, repr=False)
class Proof:
    """How a client says who it is (RFC 6749, 2.3), as it came."""

    authorization: str = ""
    """The header."""
    client_id: str = ""
    client_secret: str = ""


@dataclass(frozen=True, repr=False)
class Issued:
    """Tokens; never shown as a whole."""

    access_token: str
    scopes: tuple[str, ...]
    refresh_token: str = ""
    id_token: str = ""


@dataclass(frozen=True)
class Claims:
    """What a client learns of a reader."""

    subject: str
    email: str | None = None
    name: str | None = None


class OAuthTokens:
    """What clients do."""

    def __init__(
        self,
        db: Database,
        clients: OAuthClients,
        keys: SigningKeys,
        challenges: Challenges,
        subjects: Subjects,
        secrets: TokenSecrets,
        issuer: str,
        clock: WallClock,
        make: IdSource,
        telemetry: Telemetry,
    ) -> None:
        self._db = db
        self._clients = clients
        self._keys = keys
        self._challenges = challenges
        self._subjects = subjects
        self._secret = secrets.oauth
        self._issuer = issuer
        self._clock = clock
        self._make = make
        self._reused = telemetry.counter(
            "oauth_tokens_reused", "Authorizations of clients ended because a spent code or refresh token came back."
        )

    @property
    def audience(self) -> str:
        """Whom access tokens of clients are for: userinfo, and nothing else here."""
        return f"{self._issuer.rstrip('/')}/oauth2/userinfo"

    async def exchange_code(self, proof: Proof, code: str, redirect_uri: str, verifier: str) -> Issued:
        """Exchanges a code (RFC 6749, 4.1.3). Raises `invalid_client` and `invalid_grant`.

        A second use ends what the first one gave, since one of the two is somebody else's (RFC 9700, 2.1.1). All else
        is checked before, so that nobody who merely saw a code ends anything.
        """
        client = await self.authenticated(proof)
        place = rules.read_code(code)
        if place is None or place[0] != client.account:
            raise _invalid_grant()
        account, key, hashed = place
        now, request_id = self._clock.wall(), caller.current().request_id
        async with self._db.tenant(account, "exchange_code") as conn:
            held = await oauth.lock_by_code(conn, account, key, hashed)
            if (
                held is None
                or held.client != client.id
                or held.redirect_uri != redirect_uri
                or not rules.verifier_fits(held.code_challenge, verifier, create_s256_code_challenge)
                or held.over(now)
            ):
                raise _invalid_grant()
            spent = held.code_spent_at is not None
            if held.code_spent_at is None:
                if now >= held.code_expires_at:
                    raise _invalid_grant()
                await oauth.spend_code(conn, account, key, now, request_id)
            elif held.code_spent_by == request_id and held.generation == 1 and now < held.code_spent_at + rules.REPEAT:
                spent = False
            else:
                await oauth.revoke(conn, account, key, now, rules.CODE_REUSED)
        if spent:
            self._reused.inc()
            raise _invalid_grant()
        return await self._issue(held, rules.still(held, client), 1)

    async def refresh(self, proof: Proof, token: str, scope: str) -> Issued:
        """Exchanges a refresh token (RFC 6749, 6); raises as `exchange_code`, and `invalid_scope`.

        Two exchanges within the grace give the same successor, later ones end the family, as with sessions.
        """
        client = await self.authenticated(proof)
        claimed = rules.read_refresh_token(token)
        if claimed is None or claimed[0] != client.account:
            raise _invalid_grant()
        account, key, generation, signature = claimed
        now = self._clock.wall()
        async with self._db.tenant(account, "refresh_authorization") as conn:
            held = await oauth.lock(conn, account, key)
            if (
                held is None
                or held.client != client.id
                or held.code_spent_at is None
                or rules.OFFLINE not in rules.still(held, client)
                or not rules.signed(held, generation, signature, self._secret)
                or held.over(now)
            ):
                raise _invalid_grant()
            scopes = rules.narrowed(scope, rules.still(held, client))
            answer = session.follow(generation, held.generation, held.rotated_at, now)
            if answer is Answer.ROTATE:
                await oauth.rotate(conn, account, key, now)
            elif answer is Answer.REUSED:
                await oauth.revoke(conn, account, key, now, rules.REFRESH_REUSED)
        if answer is Answer.REUSED:
            self._reused.inc()
        if answer in (Answer.REUSED, Answer.REFUSE):
            raise _invalid_grant()
        return await self._issue(held, scopes, generation + 1)

    async def introspect(self, proof: Proof, token: str) -> dict[str, Any] | None:
        """Returns what a token of the client is, read anew; None for one that is good for nothing, or another's.

        Raises `invalid_client`, to public clients as well: anybody can say that they are one (RFC 7662, 2.1).
        """
        client = await self.authenticated(proof)
        if not client.confidential:
            raise rules.refused("invalid_client", "Only a client with a secret may ask.")
        found = await self._found(client, token)
        if found is None:
            return None
        held, claims = found
        return {
            "scope": claims.get("scope", " ".join(held.scopes)),
            "client_id": ids.encode("cli", held.client),
            "sub": ids.encode("subj", held.subject),
            "iss": self._issuer,
            "aud": self.audience,
            "exp": claims.get("exp", int(held.expires_at.timestamp())),
            "iat": claims.get("iat", int(held.rotated_at.timestamp())),
            "token_type": "Bearer" if claims else "refresh_token",
        }

    async def revoke(self, proof: Proof, token: str) -> None:
        """Ends what a token of the client belongs to, in silence about others' (RFC 7009). Raises `invalid_client`."""
        client = await self.authenticated(proof)
        found = await self._found(client, token)
        if found is not None:
            async with self._db.tenant(client.account, "revoke_authorization") as conn:
                await oauth.revoke(conn, client.account, found[0].id, self._clock.wall(), rules.CLIENT_REVOKED)

    async def userinfo(self) -> Claims:
        """Returns what the caller's access token opens of its reader, read anew.

        Raises `unauthenticated("session_ended")` when the reader is no more.
        """
        who = caller.current()
        account, subject = who.require_account(), who.require_subject()
        door = Door(session.SUBSCRIBER, account, who.live, subject)
        email: str | None = None
        name: str | None = None
        try:
            if rules.EMAIL in who.scopes:
                email, _ = await self._challenges.contact(door)
            if rules.PROFILE in who.scopes:
                name = await self._subjects.name_of(subject) or None
        except GatefoldError as error:
            if error.kind is errors.Kind.NOT_FOUND:
                raise errors.unauthenticated("session_ended", "The reader is no more.") from None
            raise
        return Claims(ids.encode("subj", subject), email, name)

    async def hinted_client(self, id_token: str) -> str:
        """Returns the client that an ID token of ours was issued to, ended or not; empty for anything else."""
        claims = await self._verified(id_token, ID_TYPE)
        audience = (claims or {}).get("aud")
        return audience if isinstance(audience, str) else ""

    async def authenticated(self, proof: Proof) -> Client:
        """Returns the client that speaks; raises `invalid_client`, and `invalid_request` for two ways at once."""
        client_id, secret = proof.client_id, proof.client_secret
        if proof.authorization:
            try:
                name, password = extract_basic_authorization({"Authorization": proof.authorization})
            except UnicodeDecodeError:
                name, password = None, None
            if not name or password is None:
                raise rules.refused("invalid_client", "The Authorization header is no client's.")
            if secret or (client_id and client_id != name):
                raise rules.refused("invalid_request", "Say in one way who the client is.")
            client_id, secret = name, password
        client = await self._clients.find(client_id)
        if client is None or not self._clients.proves(client, secret, self._clock.wall()):
            raise rules.refused("invalid_client", "This is no client, or its secret is wrong.")
        return client

    async def _found(self, client: Client, token: str) -> tuple[Authorization, dict[str, Any]] | None:
        """Returns what a client's token belongs to while it is good, and the claims of an access token."""
        now = self._clock.wall()
        claimed = rules.read_refresh_token(token)
        claims: dict[str, Any] = {}
        if claimed is not None:
            key = claimed[1]
        else:
            claims = await self._verified(token, ACCESS_TYPE) or {}
            if claims.get("aud") != self.audience or float(claims.get("exp", 0)) <= now.timestamp():
                return None
            key = ids.decode("grant", claims["grant"])
        async with self._db.tenant(client.account, "read_authorization") as conn:
            held = await oauth.lock(conn, client.account, key)
        if held is None or held.client != client.id or held.code_spent_at is None or held.over(now):
            return None
        if claimed is not None:
            _, _, generation, signature = claimed
            known = rules.signed(held, generation, signature, self._secret)
            if not known or rules.OFFLINE not in held.scopes or generation != held.generation:
                return None
        return held, claims

    async def _issue(self, held: Authorization, scopes: tuple[str, ...], generation: int) -> Issued:
        async with self._db.transaction("find_account", read_only=True) as conn:
            publisher = await accounts.find(conn, held.account)
        if publisher is None:
            raise _invalid_grant()
        now = self._clock.wall()
        who = {
            "iss": self._issuer,
            "sub": ids.encode("subj", held.subject),
            "sid": ids.encode("ses", held.session),
            "acr": held.acr,
            "auth_time": int(held.authenticated_at.timestamp()),
            "iat": int(now.timestamp()),
            "exp": min(int(now.timestamp()) + rules.ACCESS_SECONDS, int(held.expires_at.timestamp())),
        }
        client = ids.encode("cli", held.client)
        access = await self._signed(
            ACCESS_TYPE,
            {
                **who,
                "aud": self.audience,
                "client_id": client,
                "scope": " ".join(scopes),
                "account": ids.encode("acct", held.account),
                "live": publisher.live,
                "grant": ids.encode("grant", held.id),
                "jti": ids.encode("jti", self._make.new()),
            },
        )
        told: dict[str, Any] = {**who, "aud": client, "azp": client, "at_hash": _half_hash(access)}
        if held.nonce and generation == 1:
            told["nonce"] = held.nonce
        if held.acr == session.AAL2:
            told["amr"] = ["mfa"]
        refresh = rules.refresh_token(held, generation, self._secret) if rules.OFFLINE in held.scopes else ""
        return Issued(access, scopes, refresh, await self._signed(ID_TYPE, told))

    async def _signed(self, kind: str, claims: dict[str, Any]) -> str:
        kid, private = await self._keys.active()
        return jwt.encode(claims, private, algorithm=ALGORITHM, headers={"kid": kid, "typ": kind})

    async def _verified(self, token: str, kind: str) -> dict[str, Any] | None:
        """Returns the claims of a token of ours, whether it has ended or not; None for anything else."""
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != kind or header.get("alg") != ALGORITHM:
                return None
            for key in await self._keys.key_set():
                if key.kid == header.get("kid"):
                    public: Any = ECAlgorithm.from_jwk({"kty": "EC", "crv": "P-256", "x": key.x, "y": key.y})
                    claims: dict[str, Any] = jwt.decode(
                        token,
                        public,
                        algorithms=[ALGORITHM],
                        issuer=self._issuer,
                        options={"verify_aud": False, "verify_exp": False, "verify_iat": False},
                    )
                    return claims
        except jwt.InvalidTokenError:
            pass
        return None


def _half_hash(token: str) -> str:
    hashed: bytes = create_half_hash(token, ALGORITHM)
    return hashed.decode()


def _invalid_grant() -> GatefoldError:
    return rules.refused("invalid_grant", "The code or token is not valid; start again.")
