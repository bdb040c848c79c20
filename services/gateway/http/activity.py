"""Owns what the abuse service is told of requests: one activity each, pseudonymised, once the answer is known.

A serialised message followed by another is both in one (protobuf.dev/programming-guides/encoding), so what comes again
and again is serialised once: a client's part, a program's, a caller's, and an answer's.
"""

from dataclasses import dataclass
from functools import lru_cache

from gatefold.activity.v1.activity_pb2 import Activity

from libs.activity import PEOPLE, ActivityStream, Pseudonyms, shard_at
from libs.caller import Caller
from libs.clock import WallClock
from libs.errors import GatefoldError, Kind
from services.gateway.http.clients import Client, Clients, Program
from services.gateway.http.exchange import Exchange

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "QUERY"})
_OTHER_METHOD = "_OTHER"  # what OpenTelemetry calls a method that nobody knows, and that may be any text
_REFUSALS = frozenset({Kind.TOO_MANY, Kind.FORBIDDEN, Kind.UNAVAILABLE})
_MOST_REMEMBERED = 16_384
_MOST_ANSWERS = 4_096
_PLATFORM = Activity(reach=Activity.REACH_PLATFORM).SerializeToString()


@dataclass(frozen=True, slots=True)
class _Sender:
    """Somebody at an address with a program."""

    client: Client
    told: bytes
    """What is told of all three."""
    shard: int
    """That of the account, or of the network where no account is known."""
    met: tuple[bytes, bytes] | None
    """Hashes of a person and of the address, where the network is watched by another shard than the account."""


@dataclass(frozen=True, slots=True)
class Still:
    """What an activity has in common with those of requests that are all the same."""

    sender: _Sender
    told: bytes
    """Of all but the sender."""
    status: int
    body_bytes: int
    """Of the answer."""


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
        self._senders: dict[tuple[bytes, str, str], _Sender] = {}
        self._answered = lru_cache(_MOST_ANSWERS)(_answered)
        # One message for all: what moves is set anew in each.
        self._moving = Activity()
        self._time = self._moving.time

    def record(self, exchange: Exchange, status: int, *, seconds: float, body_bytes: int) -> None:
        """Takes a request that was answered after `seconds` with a body of so many bytes."""
        told = self._told(exchange, status)
        self._tell(self._sender(exchange), told, status, body_bytes, exchange.request_id, exchange.at, seconds)

    def still(self, exchange: Exchange, status: int, *, body_bytes: int) -> Still:
        """Returns what is the same in all activities of requests like this, to be told by `repeat`."""
        return Still(self._sender(exchange), self._told(exchange, status), status, body_bytes)

    def repeat(self, still: Still, request_id: str, at: float, seconds: float) -> None:
        """Takes a request that was all the same as a former one, at a time in seconds of the epoch."""
        self._tell(still.sender, still.told, still.status, still.body_bytes, request_id, at, seconds)

    def record_unreadable(self, address: str, request_id: str, status: int, reason: str) -> None:
        """Takes what was no HTTP request, or one that never arrived whole, and was answered with a problem."""
        client = self._clients.of(address)
        told = self._answered("", "", status) + Activity(problem_reason=reason).SerializeToString()
        sender = _Sender(client, client.told, client.shard, None)
        self._tell(sender, told, status, 0, request_id, self._clock.wall().timestamp(), 0.0)

    def _tell(
        self, sender: _Sender, still: bytes, status: int, body_bytes: int, request_id: str, at: float, seconds: float
    ) -> None:
        moving, time = self._moving, self._time
        time.seconds = whole = int(at)
        time.nanos = int((at - whole) * 1_000_000_000)
        moving.request_id = request_id
        moving.duration_micros = int(seconds * 1_000_000)
        moving.http_response_body_size = body_bytes
        told = sender.told + still + moving.SerializeToString()
        self._stream.tell(sender.shard, told)
        # Who was let in is told where the network is watched, too, now and then.
        if sender.met is not None and 200 <= status < 300 and self._stream.routing.meets(sender.met, whole):
            self._stream.tell(sender.client.shard, told + _PLATFORM)

    def _told(self, exchange: Exchange, status: int) -> bytes:
        """Returns what is told of a request and its answer, but for what moves."""
        endpoint, facts = exchange.endpoint, exchange.facts
        route = endpoint.template if endpoint is not None else exchange.path if exchange.page else ""
        told = self._answered(exchange.request.method, route, status)
        of_rules = facts is not None and (facts.verdict_id or facts.client_verified_crawler)
        if not (exchange.values or exchange.problem or exchange.refused or exchange.body_bytes or of_rules):
            return told
        more = Activity()
        if exchange.values:
            more.target_hash = self._of("target", "/".join(exchange.values))
        more.problem_reason = exchange.problem
        more.refused_by_edge = exchange.refused
        more.http_request_body_size = exchange.body_bytes
        if facts is not None:
            more.verdict_id = facts.verdict_id
            more.verified_crawler = facts.client_verified_crawler
        return told + more.SerializeToString()

    def _sender(self, exchange: Exchange) -> _Sender:
        caller, client = exchange.caller, exchange.client
        # The claims are all that lasts of a caller, without what is of one request.
        key = (b"" if caller is None else caller.lasting_claims, exchange.program.text, exchange.address)
        found = self._senders.get(key)
        # Another is known at the address when its place has changed.
        if found is None or found.client is not client:
            if len(self._senders) >= _MOST_REMEMBERED:
                self._senders.clear()
            found = self._senders[key] = self._met(caller, client, exchange.program)
        return found

    def _met(self, caller: Caller | None, client: Client, program: Program) -> _Sender:
        told = client.told + program.told
        if caller is None:
            return _Sender(client, told, client.shard, None)
        actor = self._clients.actor(caller, program)
        told += actor.told
        if not actor.account:
            return _Sender(client, told, client.shard, None)
        shard = shard_at(actor.account.encode())
        apart = client.network_hash and shard != client.shard and actor.kind in PEOPLE
        return _Sender(client, told, shard, (actor.hash, client.address_hash) if apart else None)


def _answered(method: str, route: str, status: int) -> bytes:
    known = method if method in _METHODS else _OTHER_METHOD
    return Activity(http_request_method=known, http_route=route, http_response_status_code=status).SerializeToString()
