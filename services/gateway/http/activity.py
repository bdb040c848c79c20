"""Owns what the abuse service is told of requests: one activity each, pseudonymised, once the answer is known.

A serialised message followed by another is both in one (protobuf.dev/programming-guides/encoding), so what comes again
and again is serialised once: a client's part, a program's, a caller's, and an answer's.
"""

from dataclasses import dataclass
from functools import lru_cache

from gatefold.activity.v1.activity_pb2 import Activity

from libs import ids
from libs.activity import ActivityStream, Pseudonyms, device_of, lets_in, shard_at
from libs.caller import Caller, CallerKind
from libs.clock import WallClock
from libs.errors import GatefoldError, Kind
from services.gateway.http.clients import Clients, Program
from services.gateway.http.exchange import Exchange

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "QUERY"})
_OTHER_METHOD = "_OTHER"  # what OpenTelemetry calls a method that nobody knows, and that may be any text
_REFUSALS = frozenset({Kind.TOO_MANY, Kind.FORBIDDEN, Kind.UNAVAILABLE})
_MOST_REMEMBERED = 16_384
_MOST_ANSWERS = 4_096
_PLATFORM = Activity(reach=Activity.REACH_PLATFORM).SerializeToString()


@dataclass(frozen=True, slots=True)
class _Actor:
    """What is told of a caller with a program."""

    told: bytes
    kind: str
    hash: bytes
    shard: int | None
    """Of the account; None where none is known."""


_NO_ACTOR = _Actor(b"", "", b"", None)


@dataclass(slots=True)
class Still:
    """What an activity has in common with those of requests that are all the same."""

    told: bytes
    body_bytes: int
    """Of the answer."""
    shard: int
    """That of the account, or of the network where no account is known."""
    around: int
    """That of the network."""
    met: tuple[bytes, bytes] | None
    """Hashes of somebody who was let in, and of the address, where another shard watches the network."""


def refused_by_edge(exchange: Exchange, error: GatefoldError) -> bool:
    """Tells whether an error is the edge's own refusal, for being too many, forbidden or overloaded.

    What a service said after it was asked is news for detectors, and so is a credential that is no good.
    """
    by_verdict = exchange.facts is not None and bool(exchange.facts.verdict_id)
    return not exchange.called and (by_verdict or error.kind in _REFUSALS)


class Activities:
    """Makes one activity of each request; never waits and never fails a request."""

    def __init__(self, stream: ActivityStream, pseudonyms: Pseudonyms, clients: Clients, *, clock: WallClock) -> None:
        self._stream = stream
        self._of = pseudonyms.of
        self._clock = clock
        self._clients = clients
        self._actors: dict[tuple[bytes, str], _Actor] = {}
        self._answered = lru_cache(_MOST_ANSWERS)(_answered)
        # One message for all: what moves is set anew in each.
        self._moving = Activity()
        self._time = self._moving.time

    def record(self, exchange: Exchange, status: int, *, seconds: float, body_bytes: int) -> Still:
        """Takes a request that was answered after `seconds` with a body of so many bytes."""
        client, program, caller = exchange.client, exchange.program, exchange.caller
        actor = _NO_ACTOR if caller is None else self._actor(caller, program)
        endpoint = exchange.endpoint
        route = endpoint.template if endpoint is not None else exchange.path if exchange.page else ""
        answered = self._answered(exchange.request.method, route, status)
        told = client.told + program.told + actor.told + answered + self._more(exchange)
        shard, met = client.shard, None
        if actor.shard is not None:
            shard = actor.shard
            if shard != client.shard and client.network_hash and lets_in(actor.kind, status):
                met = (actor.hash, client.address_hash)
        still = Still(told, body_bytes, shard, client.shard, met)
        self.repeat(still, exchange.request_id, exchange.at, seconds)
        return still

    def repeat(self, still: Still, request_id: str, at: float, seconds: float) -> None:
        """Takes a request that was all the same as a former one, at a time in seconds of the epoch."""
        moving, time = self._moving, self._time
        time.seconds = whole = int(at)
        time.nanos = int((at - whole) * 1_000_000_000)
        moving.request_id = request_id
        moving.duration_micros = int(seconds * 1_000_000)
        moving.http_response_body_size = still.body_bytes
        told = still.told + moving.SerializeToString()
        self._stream.tell(still.shard, told)
        if still.met is not None and self._stream.routing.meets(*still.met, whole):
            self._stream.tell(still.around, told + _PLATFORM)

    def record_unreadable(self, address: str, request_id: str, status: int, reason: str) -> None:
        """Takes what was no HTTP request, or one that never arrived whole, and was answered with a problem."""
        client = self._clients.of(address)
        told = client.told + self._answered("", "", status) + Activity(problem_reason=reason).SerializeToString()
        still = Still(told, 0, client.shard, client.shard, None)
        self.repeat(still, request_id, self._clock.wall().timestamp(), 0.0)

    def _more(self, exchange: Exchange) -> bytes:
        """Returns what is told of few requests."""
        facts = exchange.facts
        of_rules = facts is not None and (facts.verdict_id or facts.client_verified_crawler)
        if not (exchange.values or exchange.problem or exchange.refused or exchange.body_bytes or of_rules):
            return b""
        more = Activity()
        if exchange.values:
            more.target_hash = self._of("target", "/".join(exchange.values))
        more.problem_reason = exchange.problem
        more.refused_by_edge = exchange.refused
        more.http_request_body_size = exchange.body_bytes
        if facts is not None:
            more.verdict_id = facts.verdict_id
            more.verified_crawler = facts.client_verified_crawler
        return more.SerializeToString()

    def _actor(self, caller: Caller, program: Program) -> _Actor:
        # All that lasts of a caller, without what is of one request.
        key = (caller.lasting_claims, program.text)
        found = self._actors.get(key)
        if found is None:
            if len(self._actors) >= _MOST_REMEMBERED:
                self._actors.clear()
            found = self._actors[key] = self._told_of(caller, program.text)
        return found

    def _told_of(self, caller: Caller, agent: str) -> _Actor:
        told = Activity(caller_kind=caller.kind.name)
        if caller.account is not None:
            told.account_id = ids.encode("acct", caller.account)
        if caller.kind is not CallerKind.ANONYMOUS:
            told.actor_hash = self._of("actor", caller.actor)
        if caller.session is not None:
            told.session_hash = self._of("session", ids.encode("ses", caller.session))
            if agent:
                told.device_hash = self._of("device", device_of(caller.actor, agent))
        shard = shard_at(told.account_id.encode()) if told.account_id else None
        return _Actor(told.SerializeToString(), told.caller_kind, told.actor_hash, shard)


def _answered(method: str, route: str, status: int) -> bytes:
    known = method if method in _METHODS else _OTHER_METHOD
    return Activity(http_request_method=known, http_route=route, http_response_status_code=status).SerializeToString()
