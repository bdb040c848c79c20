"""Owns what is at both ends of the OpenID Connect provider: a client that asks for codes, and a reader's browser."""

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from libs import ids
from tests.support.auth import PASSWORD, AuthHouse
from tests.support.edge import Edge
from tests.support.gateway import Answer

CSRF = "__Host-gatefold_csrf"
REDIRECT = "https://shop.example/back"
SCOPE = "openid profile email offline_access"


def challenge_of(verifier: str) -> str:
    """Returns the S256 code challenge."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def parameters(location: str) -> dict[str, str]:
    """Returns what a redirect carries."""
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


@dataclass
class Browser:
    """A browser on the hosted page: its cookies, and the headers that it sends by itself."""

    edge: Edge
    cookies: dict[str, str] = field(default_factory=dict)

    async def post(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> Answer:
        """Posts as the page's script does."""
        sent = {"Origin": self.edge.url, "Sec-Fetch-Site": "same-origin", "Gatefold-Session": "cookie"}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            sent["X-CSRF-Token"] = self.cookies.get(CSRF, "")
        answer = await self.edge.ask("POST", path, headers={**sent, **(headers or {})}, json=body)
        for text in answer.headers.getall("Set-Cookie", []):  # type: ignore[attr-defined]
            for name, morsel in SimpleCookie(text).items():
                self.cookies[name] = morsel.value
                if not morsel.value:
                    del self.cookies[name]
        return answer

    async def sign_in(self, handle: str, email: str, password: str = PASSWORD) -> Answer:
        """Signs a reader in for a request."""
        body = {"handle": handle, "email": email, "password": password}
        return await self.post("/v1/oauth2/authorizations/sign_in", body)

    async def authorize(self, handle: str, *, consent: bool = False, **headers: str) -> Answer:
        """Goes on as the reader."""
        body = {"handle": handle, "consent": consent}
        return await self.post("/v1/oauth2/authorizations/authorize", body, headers)


@dataclass
class Client:
    """A client of an account."""

    edge: Edge
    id: str
    secret: str
    account: UUID
    redirect_uri: str = REDIRECT
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))

    def asked(self, **changes: str) -> dict[str, str]:
        """Returns the parameters of an authorization request; one that is empty is left out."""
        wanted = {
            "client_id": self.id,
            "redirect_uri": self.redirect_uri,
            "response_type": "code",
            "scope": SCOPE,
            "state": "state-of-the-shop",
            "nonce": "nonce-of-the-shop",
            "code_challenge": challenge_of(self.verifier),
            "code_challenge_method": "S256",
            **changes,
        }
        return {name: value for name, value in wanted.items() if value}

    async def begin(self, **changes: str) -> Answer:
        """Sends a browser to the hosted page."""
        return await self.edge.ask("POST", "/v1/oauth2/authorizations", json=self.asked(**changes))

    async def code(self, browser: Browser, email: str, **changes: str) -> str:
        """Has a reader sign in and agree; returns the code."""
        handle = (await self.begin(**changes)).json["handle"]
        await browser.sign_in(handle, email)
        answer = await browser.authorize(handle)
        if answer.json["next"] == "consent":
            answer = await browser.authorize(handle, consent=True)
        assert answer.status == 200, answer.json
        return parameters(answer.json["location"])["code"]

    async def exchange(self, code: str, **changes: str) -> Answer:
        """Exchanges a code."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": self.verifier,
            **changes,
        }
        return await self.ask("token", form)

    async def refresh(self, token: str, **changes: str) -> Answer:
        """Exchanges a refresh token."""
        return await self.ask("token", {"grant_type": "refresh_token", "refresh_token": token, **changes})

    async def ask(self, endpoint: str, form: dict[str, str], headers: dict[str, str] | None = None) -> Answer:
        """Posts a form as this client."""
        sent = {"client_id": self.id, **({"client_secret": self.secret} if self.secret else {}), **form}
        data = {name: value for name, value in sent.items() if value}
        return await self.edge.ask("POST", f"/oauth2/{endpoint}", data=data, headers=headers)

    async def tokens(self, browser: Browser, email: str, **changes: str) -> dict[str, Any]:
        """Has a reader sign in and agree; returns the tokens."""
        answer = await self.exchange(await self.code(browser, email, **changes))
        assert answer.status == 200, answer.json
        found: dict[str, Any] = answer.json
        return found

    async def userinfo(self, access_token: str, **headers: str) -> Answer:
        """Asks who the reader is."""
        return await self.edge.ask("GET", "/oauth2/userinfo", credential=access_token, headers=headers)


async def client_of(house: AuthHouse, edge: Edge, account: UUID, **wanted: Any) -> Client:
    """Registers a client."""
    made = await house.oauth_client(account, **wanted)
    return Client(edge, made.client.id, made.client_secret, account, made.client.redirect_uris[0])


def subject_text(subject: UUID) -> str:
    """Returns a reader's `sub`."""
    return ids.encode("subj", subject)
