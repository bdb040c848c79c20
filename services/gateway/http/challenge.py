"""Owns the proof of work: a task that costs a client a moment of computing, and the clearance that it earns.

Nothing is kept: task and clearance are signed, end soon, and are bound to the client's network and User-Agent. Solving
one task again only gives the same client another clearance.
"""

import base64
import hashlib
import hmac
import importlib.resources
import re
from collections.abc import Callable
from dataclasses import dataclass

import orjson
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from libs import errors
from libs.activity import network_of
from libs.clock import WallClock
from services.gateway.http.answer import Answer
from services.gateway.http.exchange import Exchange
from services.gateway.http.headers import PAGE_CSP

PATH = "/challenge"
COOKIE = "__Host-gatefold_clearance"
HEADER = "Gatefold-Clearance"
TASK_SECONDS = 300

_TASK = re.compile(r"task1\.([0-9]{1,12})\.([0-9]{1,2})\.([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{43})")
_CLEARANCE = re.compile(r"pass1\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})")
_MOST_COUNT = 2**53
_LONGEST_BODY = 1_000
_ANYWHERE = {
    # A clearance is of use to its own client alone, so that any page may fetch one for itself.
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Content-Type",
    "Access-Control-Max-Age": "86400",
}


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be solved: a number with which the SHA-256 of `challenge.number` begins with `bits` zero bits."""

    challenge: str
    bits: int
    seconds: int
    """Until it ends."""


class Challenges:
    """Sets tasks, and judges answers and clearances."""

    def __init__(
        self, secret: str, *, bits: int, clearance_seconds: int, clock: WallClock, randomness: Callable[[int], bytes]
    ) -> None:
        """`secret` is the same for all gateways."""
        kdf = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"gatefold/challenge")
        self._key = kdf.derive(secret.encode())
        self._bits = bits
        self._clearance_seconds = clearance_seconds
        self._clock = clock
        self._randomness = randomness
        assets = importlib.resources.files(__package__) / "assets"
        self._page = assets.joinpath("challenge.html").read_text(encoding="utf-8")

    def set_task(self, address: str, user_agent: str) -> Task:
        """Returns a task for a client."""
        ends_at = self._now() + TASK_SECONDS
        nonce = _text(self._randomness(16))
        mac = self._mac("task1", f"{ends_at}.{self._bits}.{nonce}", address, user_agent)
        return Task(f"task1.{ends_at}.{self._bits}.{nonce}.{mac}", self._bits, TASK_SECONDS)

    def clearance(self, challenge: str, number: int, address: str, user_agent: str) -> str:
        """Returns a clearance for a right answer; raises `invalid("challenge_refused")` for any other."""
        found = _TASK.fullmatch(challenge)
        if found is not None and 0 <= number < _MOST_COUNT:
            ends_at, bits, nonce, mac = found.groups()
            own = self._mac("task1", f"{ends_at}.{bits}.{nonce}", address, user_agent)
            digest = hashlib.sha256(f"{challenge}.{number}".encode()).digest()
            if (
                hmac.compare_digest(mac, own)
                and int(ends_at) > self._now()
                and int.from_bytes(digest, "big") >> (256 - int(bits)) == 0
            ):
                until = self._now() + self._clearance_seconds
                return f"pass1.{until}.{self._mac('pass1', str(until), address, user_agent)}"
        raise errors.invalid("challenge_refused", "The answer is wrong, too late, or of another client.")

    def clears(self, token: str, address: str, user_agent: str) -> bool:
        """Tells whether a clearance holds for a client."""
        found = _CLEARANCE.fullmatch(token)
        if found is None or int(found[1]) <= self._now():
            return False
        return hmac.compare_digest(found[2], self._mac("pass1", found[1], address, user_agent))

    def cleared(self, exchange: Exchange) -> bool:
        """Tells whether a request carries a clearance, as a header or a cookie."""
        token = exchange.header(HEADER) or _cookies(exchange.header("Cookie")).get(COOKIE, "")
        return bool(token) and self.clears(token, exchange.address, exchange.agent)

    def wants_page(self, exchange: Exchange) -> bool:
        """Tells whether somebody looks at what is answered."""
        return exchange.request.method == "GET" and "text/html" in exchange.header("Accept")

    def page(self, exchange: Exchange, status: int) -> Answer:
        """Returns the page that solves a task and then loads what was asked for."""
        headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": PAGE_CSP, "Vary": "Accept"}
        return Answer(status, headers, self._page.replace("{request_id}", exchange.request_id).encode())

    def answer(self, exchange: Exchange, body: bytes) -> Answer:
        """Returns the answer to a request for PATH.

        Raises `method_not_allowed`, `malformed("json_malformed")` and `invalid("challenge_refused")`.
        """
        verb, agent = exchange.request.method, exchange.agent
        if verb == "OPTIONS":
            return Answer(204, dict(_ANYWHERE))
        if verb == "GET" and self.wants_page(exchange):
            return self.page(exchange, 200)
        if verb == "GET":
            task = self.set_task(exchange.address, agent)
            return _json({"challenge": task.challenge, "bits": task.bits, "expires_in": task.seconds})
        if verb != "POST":
            raise errors.method_not_allowed(
                "method_not_allowed", "This path allows GET, POST, OPTIONS.", metadata={"allow": "GET, POST, OPTIONS"}
            )
        challenge, number = _read(body)
        token = self.clearance(challenge, number, exchange.address, agent)
        lasts = self._clearance_seconds
        cookie = f"{COOKIE}={token}; Path=/; Max-Age={lasts}; Secure; HttpOnly; SameSite=Lax"
        return _json({"clearance": token, "expires_in": lasts}, cookie)

    def _now(self) -> int:
        return int(self._clock.wall().timestamp())

    def _mac(self, form: str, content: str, address: str, user_agent: str) -> str:
        bound = f"{form}\n{content}\n{network_of(address)}\n{user_agent}"
        return _text(hmac.digest(self._key, bound.encode("utf-8", "replace"), "sha256"))


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _json(document: dict[str, object], *cookies: str) -> Answer:
    return Answer(200, {"Content-Type": "application/json", **_ANYWHERE}, orjson.dumps(document), list(cookies))


def _read(body: bytes) -> tuple[str, int]:
    try:
        document = orjson.loads(body) if len(body) <= _LONGEST_BODY else None
    except orjson.JSONDecodeError:
        document = None
    match document:
        case {"challenge": str(challenge), "number": int(number)} if not isinstance(number, bool):
            return challenge, number
    raise errors.malformed("json_malformed", 'Send {"challenge": "…", "number": 0}.')


def _cookies(sent: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in sent.split(";"))
    return {name.strip(): value.strip() for name, _, value in pairs}
