"""Owns what the abuse service is told of requests: one activity each, pseudonymised, once the answer is known."""

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol
from uuid import UUID

from gatefold.activity.v1 import activity_pb2

from libs import ids
from libs.activity import USER_AGENT_LENGTH, Pseudonyms, device_of, network_of
from libs.caller import CallerKind
from libs.clock import WallClock
from libs.errors import GatefoldError, Kind
from services.gateway.http.exchange import Exchange
from services.gateway.http.places import NOWHERE, Place

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "QUERY"})
_OTHER_METHOD = "_OTHER"  # what OpenTelemetry calls a method that nobody knows, and that may be any text
_REFUSALS = frozenset({Kind.TOO_MANY, Kind.FORBIDDEN, Kind.UNAVAILABLE})
_MOST_REMEMBERED = 16_384


PlaceOf = Callable[[str], Place]
"""Tells where an address is; called once a request, so it must be quick and never wait."""


class Recorder(Protocol):
    """What takes activities without waiting; libs.activity.ActivityStream."""

    def record(self, activity: activity_pb2.Activity) -> None: ...


def refused_by_edge(exchange: Exchange, error: GatefoldError) -> bool:
    """Tells whether an error is the edge's own refusal, for being too many, forbidden or overloaded.

    What a service said after it was asked is news for detectors, and so is a credential that is no good.
    """
    by_verdict = exchange.facts is not None and bool(exchange.facts.verdict_id)
    return not exchange.called and (by_verdict or error.kind in _REFUSALS)


class Activities:
    """Makes one activity of each request; never waits and never fails a request."""

    def __init__(self, stream: Recorder, pseudonyms: Pseudonyms, place_of: PlaceOf, *, clock: WallClock) -> None:
        self._stream = stream
        self._of = pseudonyms.of
        self._clock = clock
        self._place_of = place_of
        # Clients come back: what costs a hash or an encoding is kept for those seen last.
        self._client = lru_cache(_MOST_REMEMBERED)(self._hashed_client)
        self._owner = lru_cache(_MOST_REMEMBERED)(self._hashed_owner)

    def record(self, exchange: Exchange, status: int, *, seconds: float, body_bytes: int) -> activity_pb2.Activity:
        """Takes a request that was answered after `seconds` with a body of so many bytes."""
        method = exchange.request.method
        activity = self._begun(exchange.address, exchange.request_id, exchange.at, status)
        activity.duration_micros = int(seconds * 1_000_000)
        activity.http_request_method = method if method in _METHODS else _OTHER_METHOD
        if exchange.endpoint is not None:
            activity.http_route = exchange.endpoint.template
        elif exchange.page:
            activity.http_route = exchange.path
        agent = exchange.agent
        if agent:
            activity.user_agent_hash = self._of("user_agent", agent[:USER_AGENT_LENGTH])
        caller = exchange.caller
        if caller is not None:
            activity.caller_kind = caller.kind.name
            activity.account_id, activity.session_hash = self._owner(caller.account, caller.session)
            if caller.kind is not CallerKind.ANONYMOUS:
                activity.actor_hash = self._of("actor", caller.actor)
            if agent and caller.session is not None:
                activity.device_hash = self._of("device", device_of(caller.actor, agent[:USER_AGENT_LENGTH]))
        if exchange.values:
            activity.target_hash = self._of("target", "/".join(exchange.values))
        if exchange.problem:
            activity.problem_reason = exchange.problem
        if exchange.refused:
            activity.refused_by_edge = True
        facts = exchange.facts
        if facts is not None:
            activity.verdict_id = facts.verdict_id
            activity.verified_crawler = facts.verified_crawler
        if exchange.body_bytes:
            activity.http_request_body_size = exchange.body_bytes
        activity.http_response_body_size = body_bytes
        self._stream.record(activity)
        return activity

    def repeat(self, former: activity_pb2.Activity, request_id: str, at: float, seconds: float) -> None:
        """Takes a request that was all the same as a former one, at a time in seconds of the epoch."""
        activity = activity_pb2.Activity()
        activity.CopyFrom(former)
        _timed(activity, at)
        activity.request_id = request_id
        activity.duration_micros = int(seconds * 1_000_000)
        self._stream.record(activity)

    def record_unreadable(self, address: str, request_id: str, status: int, reason: str) -> None:
        """Takes what was no HTTP request, or one that never arrived whole, and was answered with a problem."""
        activity = self._begun(address, request_id, self._clock.wall().timestamp(), status)
        activity.http_request_method = _OTHER_METHOD
        activity.problem_reason = reason
        self._stream.record(activity)

    def _begun(self, address: str, request_id: str, began: float, status: int) -> activity_pb2.Activity:
        # Fields are set one by one: that costs half of handing them to the constructor.
        activity = activity_pb2.Activity()
        _timed(activity, began)
        activity.http_response_status_code = status
        activity.request_id = request_id
        if address:
            activity.client_address_hash, activity.client_network_hash = self._client(address)
            place = self._place_of(address)
            if place is not NOWHERE:
                _locate(activity, place)
        return activity

    def _hashed_owner(self, account: UUID | None, session: UUID | None) -> tuple[str, bytes]:
        return (
            "" if account is None else ids.encode("acct", account),
            b"" if session is None else self._of("session", ids.encode("ses", session)),
        )

    def _hashed_client(self, address: str) -> tuple[bytes, bytes]:
        return self._of("address", address), self._of("network", network_of(address))


def _timed(activity: activity_pb2.Activity, at: float) -> None:
    time = activity.time
    time.seconds = whole = int(at)
    time.nanos = int((at - whole) * 1_000_000_000)


def _locate(activity: activity_pb2.Activity, place: Place) -> None:
    activity.geo_country_iso_code = place.country
    activity.client_asn = place.asn
    if place.latitude is not None and place.longitude is not None:
        activity.geo_location_lat, activity.geo_location_lon = place.latitude, place.longitude
