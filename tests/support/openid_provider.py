"""Owns an OpenID provider with keys of its own, which answers by the standard unless it is told to lie."""

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from libs.clock import WallClock

CLIENT_ID = "client-of-tests"
CLIENT_SECRET = "client-secret-of-tests-Zx81"


@dataclass(frozen=True)
class Back:
    """What a browser comes back with."""

    page: str
    state: str
    code: str
    iss: str


@dataclass
class OpenIdProvider:
    """The provider. Whoever the browser is signs in as `person`; `lies` change what it says of them."""

    clock: WallClock
    url: str = ""
    issuer: str = ""
    """What it calls itself; its address where nothing else is said."""
    person: dict[str, Any] = field(default_factory=dict)
    """Claims of who is signed in there; `sub` at least."""
    userinfo: dict[str, Any] = field(default_factory=dict)
    algorithm: str = "RS256"
    lies: dict[str, Any] = field(default_factory=dict)
    """Claims of the next ID tokens, over the right ones; None leaves one out."""
    payload: bytes = b""
    """What the next ID tokens hold instead of claims."""
    header: dict[str, Any] = field(default_factory=dict)
    """Header of the next ID tokens, over the right one."""
    discovery: dict[str, Any] = field(default_factory=dict)
    """Members of the discovery document, over the right ones."""
    answers: dict[str, web.Response] = field(default_factory=dict)
    """What is answered at a path instead of the right thing."""
    giant: set[str] = field(default_factory=set)
    """Paths at which the right answer is a megabyte longer."""
    silent: set[str] = field(default_factory=set)
    """Paths at which nothing is ever answered."""
    names_itself: bool = True
    public_as_secret: bool = False
    """Signs by HS256 with the public key that everybody has."""
    unknown_key: bool = False
    """Signs with a key that is in no key set, under the id of one that is."""
    replays: bool = False
    """Takes a code more than once."""
    asked: list[str] = field(default_factory=list)
    """Paths, in the order of requests."""
    keys: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    forms: list[Mapping[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rotate()

    def rotate(self) -> None:
        """Replaces all keys."""
        made = secrets.token_hex(4)
        self.keys = {
            "RS256": RSAKey.generate_key(2048, {"kid": f"rsa-{made}"}),
            "ES256": ECKey.generate_key("P-256", {"kid": f"ec-{made}"}),
            "EdDSA": OKPKey.generate_key("Ed25519", {"kid": f"okp-{made}"}),
        }
        self.keys["PS256"] = self.keys["RS256"]

    def honest(self) -> None:
        """Lies no longer."""
        self.lies, self.header, self.discovery, self.answers, self.userinfo = {}, {}, {}, {}, {}
        self.public_as_secret = self.unknown_key = self.replays = False
        self.names_itself, self.algorithm, self.payload = True, "RS256", b""

    async def browse(self, authorization_url: str) -> Back:
        """Does what a browser does that is sent here: signs in and is sent back."""
        async with (
            aiohttp.ClientSession() as browser,
            browser.get(authorization_url, allow_redirects=False) as answer,
        ):
            assert answer.status == 302, await answer.text()
            location = answer.headers["Location"]
        parts = urlsplit(location)
        given = {name: values[0] for name, values in parse_qs(parts.query).items()}
        page = parts._replace(query="").geturl()
        return Back(page, given["state"], given["code"], given.get("iss", ""))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answers any request."""
        path = request.path.removeprefix(urlsplit(self.url).path)
        self.asked.append(path)
        if path in self.silent:
            await asyncio.Event().wait()
        if path in self.answers:
            planted = self.answers[path]
            return web.Response(body=planted.body, status=planted.status, headers=dict(planted.headers))
        routes = {
            "/.well-known/openid-configuration": self._discovery,
            "/authorize": self._authorize,
            "/token": self._token,
            "/jwks": self._jwks,
            "/userinfo": self._userinfo,
        }
        answer = await routes[path](request)
        if path in self.giant and answer.text is not None and answer.status == 200:
            return web.json_response({**json.loads(answer.text), "x": "y" * 1_000_000})
        return answer

    async def _discovery(self, request: web.Request) -> web.Response:
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "PS256", "EdDSA", "HS256", "none"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "authorization_response_iss_parameter_supported": self.names_itself,
        }
        return web.json_response({**document, **self.discovery})

    async def _authorize(self, request: web.Request) -> web.Response:
        asked = dict(request.query)
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        assert asked["client_id"] == CLIENT_ID
        code = f"code-{secrets.token_urlsafe(24)}"
        self.codes[code] = asked
        back = {"code": code, "state": asked["state"]}
        if self.names_itself:
            back["iss"] = self.person.get("iss", self.issuer)
        joint = "&" if "?" in asked["redirect_uri"] else "?"
        return web.Response(status=302, headers={"Location": asked["redirect_uri"] + joint + urlencode(back)})

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.forms.append(form)
        given = request.headers.get("Authorization", "")
        if given.startswith("Basic "):
            name, _, secret = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")
            client = (unquote(name), unquote(secret))
        else:
            client = (form.get("client_id", ""), form.get("client_secret", ""))
        asked = self.codes.get(form["code"]) if self.replays else self.codes.pop(form["code"], None)
        verifier = hashlib.sha256(form["code_verifier"].encode()).digest()
        if (
            client[0] != CLIENT_ID
            or not (client[1] == CLIENT_SECRET or client[1].count(".") == 2)
            or asked is None
            or form["grant_type"] != "authorization_code"
            or form["redirect_uri"] != asked["redirect_uri"]
            or _base64(verifier) != asked["code_challenge"]
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        access_token = f"at-{secrets.token_urlsafe(16)}"
        return web.json_response(
            {"access_token": access_token, "token_type": "Bearer", "id_token": self._id_token(asked, access_token)}
        )

    def _id_token(self, asked: Mapping[str, str], access_token: str) -> str:
        now = int(self.clock.wall().timestamp())
        digest = hashlib.new("sha512" if self.algorithm == "EdDSA" else "sha256", access_token.encode()).digest()
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            "at_hash": _base64(digest[: len(digest) // 2]),
            **self.person,
            **self.lies,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        algorithm = self.header.get("alg", self.algorithm)
        key = self.keys[self.algorithm]
        header = {"alg": algorithm, "kid": key.kid, **self.header}
        if algorithm == "none" or self.public_as_secret:
            # By hand: the library makes neither.
            header["alg"] = "HS256" if self.public_as_secret else "none"
            signed = ".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
            mac = hmac.digest(key.as_pem(private=False), signed.encode(), "sha256")
            return f"{signed}.{_base64(mac) if self.public_as_secret else ''}"
        if self.unknown_key:
            key = RSAKey.generate_key(2048) if self.algorithm in ("RS256", "PS256") else ECKey.generate_key("P-256")
        # Not by the library's `jwt`, which writes claims alone, and no text that UTF-8 cannot.
        return jws.serialize_compact(header, self.payload or json.dumps(claims).encode(), key, registry=_Registry())

    async def _jwks(self, request: web.Request) -> web.Response:
        keys = {key.kid: key for key in self.keys.values()}
        return web.json_response({"keys": [{**key.as_dict(private=False), "use": "sig"} for key in keys.values()]})

    async def _userinfo(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"].startswith("Bearer at-")
        return web.json_response({"sub": self.person["sub"], **self.userinfo})


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class _Registry(jws.JWSRegistry):
    """Signs with whatever is asked for."""

    def __init__(self) -> None:
        super().__init__(strict_check_header=False)
        self.max_header_length = 100_000

    def check_header(self, header: Any) -> None:
        """Takes any header."""

    def get_alg(self, name: str) -> Any:
        """Returns the algorithm, whatever is thought of it."""
        return self.algorithms[name]


@asynccontextmanager
async def serving(clock: WallClock, prefix: str = "") -> AsyncIterator[OpenIdProvider]:
    """Runs one on a free port of loopback, under a path."""
    found = OpenIdProvider(clock)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.answer)
    async with TestServer(app) as server:
        found.url = found.issuer = str(server.make_url("")).rstrip("/") + prefix
        yield found
