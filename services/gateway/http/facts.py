"""Owns what rules know of a request: found out only where a rule asks for it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import unquote

from libs.caller import Caller, CallerKind
from services.gateway.domain.firewall import Facts
from services.gateway.http.clients import Actor, Clients
from services.gateway.http.crawlers import VERIFIED, Crawlers, OnList
from services.gateway.http.exchange import Exchange, text_of
from services.gateway.http.request import Request
from services.gateway.http.verdicts import Held, Verdicts

_LONGEST_SIZE = 19
_CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization", "x-csrf-token"})
_KEPT = tuple(field.name for field in fields(Facts) if field.name not in ("request_headers", "tags"))
_KEYS = frozenset({CallerKind.SECRET_KEY, CallerKind.PUBLISHABLE_KEY})


@dataclass(frozen=True)
class Sources:
    """Where things that are not in the request come from."""

    crawlers: Crawlers
    verdicts: Verdicts
    clients: Clients


class RequestFacts:
    """The fields of docs/firewall.md, each with an underscore for the dot; what is absent is looked up once."""

    def __init__(self, exchange: Exchange, sources: Sources, on_list: OnList) -> None:
        self.sources = sources
        """Where the rest comes from."""
        self.caller: Caller | None = None
        """Who the caller is, once that is known."""
        # Not the exchange, which holds these facts: each would keep the other, and all of the request, for long.
        self.request = exchange.request
        self.client_address = exchange.address
        self.client = exchange.client
        self.program = exchange.program
        place = exchange.client.place
        self.client_country = place.country
        self.client_asn = place.asn
        claim = exchange.program.claim
        self.client_crawler = "" if claim is None else sources.crawlers.standing(claim, exchange.address, on_list)
        self.client_verified_crawler = self.client_crawler == VERIFIED
        self.request_method: str = exchange.request.method
        # As the routes read it, so that no way of writing a path goes round a rule.
        self.request_path = unquote(exchange.path) if "%" in exchange.path else exchange.path
        self.request_query = exchange.query
        self.request_user_agent = exchange.agent
        self.request_route = exchange.match.template if exchange.match is not None else ""
        self.tags: tuple[str, ...] = ()
        self.ends = False
        """No rule is to be looked at any more."""
        self.allowed = False
        self.verdict_id = ""
        """Of the verdict that was acted on."""
        self.verdicts: tuple[str, ...] = ()
        """Those that were looked at, by id."""

    def __getattr__(self, name: str) -> object:
        find = _FINDERS.get(name)
        if find is None:
            raise AttributeError(name)
        value = self.__dict__[name] = find(self)
        return value

    def know(self, caller: Caller) -> None:
        """Takes note of who the caller is; verdicts on them are looked for anew."""
        self.caller = caller
        known = self.__dict__
        if "verdict" in known:
            for name in ("verdict", "verdict_action", "verdict_reasons"):
                known.pop(name, None)

    def kept(self) -> Facts:
        """Returns everything that rules may ask for, as it is to be kept: without what proves who somebody is."""
        known = self.__dict__
        shown: dict[str, str] = {}
        for name, value in self.request.headers.items():
            written = name.lower()
            if written not in _CREDENTIALS:
                shown[written] = f"{shown[written]}, {text_of(value)}" if written in shown else text_of(value)
        found: dict[str, Any] = {name: known[name] if name in known else _FINDERS[name](self) for name in _KEPT}
        return Facts(request_headers=shown, **found)


class Headers(Mapping[str, str]):
    """Header fields by their names in lower case; of one that came repeatedly all, joined (RFC 9110, 5.3)."""

    def __init__(self, request: Request) -> None:
        self._headers = request.headers

    def __getitem__(self, name: str) -> str:
        found: list[str] = self._headers.getall(name)
        text = ", ".join(found)
        return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8", "replace")

    def __contains__(self, name: object) -> bool:
        return name in self._headers

    def __iter__(self) -> Iterator[str]:
        return iter({name.lower(): None for name in self._headers})

    def __len__(self) -> int:
        return len({name.lower() for name in self._headers})


def _size(facts: RequestFacts) -> int:
    request = facts.request
    stated = request.headers.get("Content-Length", "")
    if stated.isascii() and stated.isdigit() and len(stated) < _LONGEST_SIZE:
        return int(stated)
    return -1 if request.body_exists else 0


def _media_type(request: Request) -> str:
    return text_of(request.headers.get("Content-Type", "")).partition(";")[0].strip().lower()


def _actor(facts: RequestFacts) -> Actor | None:
    return None if facts.caller is None else facts.sources.clients.actor(facts.caller, facts.program)


def _verdict(facts: RequestFacts) -> Held | None:
    if not facts.sources.verdicts:
        return None
    client, actor = facts.client, _actor(facts)
    known = [
        ("address", client.address_hash),
        ("network", client.network_hash),
        ("user_agent", facts.program.hash),
    ]
    if actor is None:
        return facts.sources.verdicts.of(known)
    known += (("actor", actor.hash), ("session", actor.session_hash), ("device", actor.device_hash))
    return facts.sources.verdicts.of(known, actor.account)


def _counting(facts: RequestFacts) -> Held | None:
    verdict = facts.verdict
    return verdict if isinstance(verdict, Held) and not verdict.shadow else None


def _of_caller(read: Callable[[Caller], str]) -> Callable[[RequestFacts], str]:
    return lambda facts: "" if facts.caller is None else read(facts.caller)


_FINDERS: Mapping[str, Callable[[RequestFacts], object]] = {
    "request_headers": lambda facts: Headers(facts.request),
    "request_content_type": lambda facts: _media_type(facts.request),
    "request_size": _size,
    "verdict": _verdict,
    "verdict_action": lambda facts: found.action if (found := _counting(facts)) else "",
    "verdict_reasons": lambda facts: found.reasons if (found := _counting(facts)) else (),
    "caller_kind": _of_caller(lambda caller: caller.kind.name),
    "caller_key": _of_caller(lambda caller: caller.actor if caller.kind in _KEYS else ""),
    "caller_account": lambda facts: "" if (actor := _actor(facts)) is None else actor.account,
    "caller_actor": _of_caller(lambda caller: caller.actor),
}
