"""Owns what is known of one request while it is on its way through the edge."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from libs.caller import Caller
from libs.ids import Randomness
from services.gateway.http.clients import NOBODY, UNNAMED, Client, Program
from services.gateway.http.contracts import Endpoint
from services.gateway.http.request import Request
from services.gateway.http.routes import Match

if TYPE_CHECKING:
    from services.gateway.http.facts import RequestFacts
    from services.gateway.http.limits.refusal import Refusal


@dataclass(slots=True)
class Exchange:
    """One request, and the headers its answer has so far."""

    request: Request
    request_id: str
    began: float
    """By the monotonic clock, in seconds."""
    at: float
    """The same moment by the wall's, in seconds of the epoch."""
    path: str
    """As it was sent, without the query."""
    query: str
    address: str
    """Of the client; empty when it cannot be known."""
    origin: str | None
    agent: str = ""
    """Its User-Agent header, as `header` returns it."""
    client: Client = NOBODY
    """What is known of the address."""
    program: Program = UNNAMED
    """What is known of the User-Agent."""
    match: Match | None = None
    """What the path leads to."""
    endpoint: Endpoint | None = None
    values: tuple[str, ...] = ()
    """Texts of the path's variables."""
    idempotency_key: str | None = None
    caller: Caller | None = None
    headers: dict[str, str] = field(default_factory=dict)
    wants_cookie: bool = False
    """A page of this origin asks for a cookie instead of tokens."""
    by_cookie: bool = False
    """The caller is known by a cookie, from a page of this origin."""
    rates: tuple[str, ...] = ()
    """Rate classes, or names of `rule:` quotas, that rules of the firewall hold it against, too."""
    cookies: list[str] = field(default_factory=list)
    """Set-Cookie headers of the answer."""
    page: bool = False
    """The path is a page of the gateway's own, so that it holds no text of anybody's."""
    called: bool = False
    """The endpoint's service was asked."""
    body_bytes: int = 0
    """Of the request's body, as far as it was read."""
    problem: str = ""
    """Reason of the answer, where it is a problem."""
    refused: bool = False
    """The answer is the edge's own refusal, and says nothing of the client."""
    facts: "RequestFacts | None" = None
    """What rules know of it, once the firewall has seen it."""
    counts: list[Callable[[], object]] = field(default_factory=list)
    """What is to be counted again for the same request, where it is answered without being looked at."""
    refusal: "Refusal | None" = None
    """The refusal that it was told again."""
    recount: Callable[[], Mapping[str, str] | None] | None = None
    """Counts the same request once more against its quotas, once it was: its headers, or None if that takes a look."""
    cost_factor: int = 1
    """How many times its cost it counts against its limits."""

    def header(self, name: str) -> str:
        """Returns a request header, empty when it is absent; never with bytes that are no UTF-8."""
        sent = self.request.headers.get(name)
        return "" if sent is None else text_of(sent)

    @property
    def route(self) -> str:
        """The template of the path, for metrics and logs: a path itself may hold personal data."""
        return self.endpoint.template if self.endpoint else "-"


_MADE_AT_ONCE = 256


class RequestIds:
    """Makes ids that nobody guesses: an answer's id may be shown to ask for help with it."""

    def __init__(self, randomness: Randomness) -> None:
        self._randomness = randomness
        self._made: list[str] = []

    def new(self) -> str:
        """Returns 32 hexadecimal digits; a system call is made for many of them."""
        if not self._made:
            drawn = self._randomness(16 * _MADE_AT_ONCE).hex()
            self._made = [drawn[start : start + 32] for start in range(0, len(drawn), 32)]
        return self._made.pop()


def text_of(header: str) -> str:
    """Returns the text of a header, with a mark in place of bytes that are no UTF-8."""
    return header if header.isascii() else header.encode("utf-8", "replace").decode("utf-8", "replace")


_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id_of(request: Request) -> str | None:
    """Returns the client's own request id, if it is one that logs and headers can carry."""
    sent = request.headers.get("X-Request-Id")
    return sent if sent and _REQUEST_ID.fullmatch(sent) else None


def origin_of(request: Request) -> str | None:
    """Returns the Origin header; what is no text becomes `null`, the origin that is nobody's site (RFC 6454)."""
    sent: str | None = request.headers.get("Origin")
    return "null" if sent is not None and not (sent.isascii() and sent.isprintable()) else sent
