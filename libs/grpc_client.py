"""Owns calls to other services: one channel a peer behind the ordinary stubs, with caller, trace, deadline, retries."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NoReturn, Self

import grpc
import orjson
from google.protobuf.message import Message

from libs import caller, deadline, errors, grpc_errors, policies
from libs.caller import CallerSigner
from libs.errors import GatefoldError
from libs.grpc_line import Line
from libs.grpc_server import MESSAGE_BYTES, METADATA_BYTES
from libs.grpc_stack import CALLER_KEY
from libs.hop.client import Hop
from libs.hop.config import HopConfig
from libs.hop.stream import NotSentError, Stream
from libs.kill_points import KillPoints
from libs.policies import Policy
from libs.telemetry import Telemetry
from libs.tls import Pem, Tls

DEADLINE_SECONDS = 5.0
ATTEMPTS = 3
_PAUSE_SECONDS = 0.05
_NOT_SENT_ATTEMPTS = 10

# What a peer answers when the two services do not trust each other: a fault of the platform's, not of who called it.
_DISTRUST = frozenset({"caller_required", "caller_invalid", "caller_expired", "caller_not_peer", "peer_not_allowed"})

Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True)
class GrpcConfig:
    """Where the peers are, JSON `{"billing": "unix:/run/billing.sock"}`, and the certificate files for mTLS."""

    peers: str = "{}"
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    connect_seconds: float = 1.0
    hop: HopConfig = field(default_factory=HopConfig)

    def __post_init__(self) -> None:
        self.addresses()
        if len({self.tls_ca is None, self.tls_cert is None, self.tls_key is None}) > 1:
            raise ValueError("tls_ca, tls_cert and tls_key must be set together")

    def addresses(self) -> dict[str, str]:
        """Returns the peers' addresses by name; raises ValueError when they cannot be read."""
        try:
            document = orjson.loads(self.peers)
        except orjson.JSONDecodeError:
            raise ValueError("peers must be JSON") from None
        if not isinstance(document, dict) or not all(isinstance(address, str) for address in document.values()):
            raise ValueError("peers must be a JSON object of addresses")
        return document

    def tls(self) -> Tls | None:
        """Returns the certificate files, if there are any."""
        if self.tls_ca is None or self.tls_cert is None or self.tls_key is None:
            return None
        return Tls(self.tls_ca, self.tls_cert, self.tls_key)


class Channels:
    """One service's channels to its peers, opened on first use."""

    def __init__(
        self,
        service: str,
        config: GrpcConfig,
        signer: CallerSigner,
        *,
        telemetry: Telemetry,
        kill_points: KillPoints,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._addresses = config.addresses()
        tls = config.tls()
        self._certificates = tls.watched(telemetry) if tls else None
        self._hop = config.hop
        self._service = service
        self._signer = signer
        self._telemetry = telemetry
        self._randomness = randomness
        self._caller = _Outgoing(service, signer, config.connect_seconds, telemetry, kill_points)
        self._channels: dict[str, PeerChannel] = {}

    def channel(self, peer: str) -> "PeerChannel":
        """Returns the channel, for a generated stub; raises `internal("peer_unknown")` without an address for it."""
        if peer not in self._channels:
            if peer not in self._addresses:
                raise errors.internal("peer_unknown", f"There is no address for {peer}.")
            line = Line(partial(self._open, peer), self._certificates)
            self._channels[peer] = PeerChannel(peer, line, self._caller, self._hop_to(peer, line))
        return self._channels[peer]

    async def close(self) -> None:
        """Closes all channels."""
        for channel in self._channels.values():
            await channel.close()

    def _hop_to(self, peer: str, line: Line) -> Hop:
        def metadata() -> Metadata:
            # A stream is opened by the service itself; each call in it says for whom it is.
            who = caller.service_caller(self._service, None, request_id="")
            return ((CALLER_KEY, self._signer.sign(who, peer)),)

        return Hop(
            peer,
            line.channel,
            metadata,
            self._hop,
            message_bytes=MESSAGE_BYTES,
            randomness=self._randomness,
            telemetry=self._telemetry,
        )

    def _open(self, peer: str, pem: Pem | None) -> grpc.aio.Channel:
        options = (
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ("grpc.max_send_message_length", MESSAGE_BYTES),
            ("grpc.max_metadata_size", METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", METADATA_BYTES),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
            # How long one attempt to connect may take, in spite of its name.
            ("grpc.min_reconnect_backoff_ms", 2000),
            # Retries are decided here, by the method's policy.
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
        )
        address = self._addresses[peer]
        if pem is None:
            return grpc.aio.insecure_channel(address, options)
        credentials = grpc.ssl_channel_credentials(pem.ca, pem.key, pem.certificate)
        # A certificate carries the service's name, under whatever host name the service is reached.
        return grpc.aio.secure_channel(address, credentials, (*options, ("grpc.ssl_target_name_override", peer)))


class PeerChannel(grpc.aio.Channel):
    """What a generated stub takes for a channel; its methods return coroutines, or async iterators for streams.

    Calls raise GatefoldError: what the peer raised; `unavailable("service_unavailable")` when nothing was sent because
    the peer is away; `unavailable("outcome_unknown")` when the connection broke and the call must not be repeated;
    `timeout("deadline_exceeded")`.
    """

    def __init__(self, peer: str, line: Line, outgoing: "_Outgoing", hop: Hop) -> None:
        self._peer = peer
        self._line = line
        self._outgoing = outgoing
        self._hop = hop

    def unary_unary(  # type: ignore[override]
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Returns what a stub calls for an RPC with one answer."""
        assert request_serializer is not None
        assert response_deserializer is not None
        label = method.rpartition("/")[2]
        way = _Way(
            self._peer, self._line, self._hop, policies.of(method), label, request_serializer, response_deserializer
        )
        return partial(self._outgoing.unary, way)

    def unary_stream(  # type: ignore[override]
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> Callable[..., AsyncIterator[Any]]:
        """Returns what a stub calls for an RPC with a stream of answers."""
        policy = policies.of(method)

        def raw(channel: grpc.aio.Channel) -> Any:
            return channel.unary_stream(method, request_serializer, response_deserializer)

        def call(request: Message, timeout: float | None = None, metadata: Metadata = ()) -> AsyncIterator[Message]:
            return self._outgoing.stream(self._peer, self._line, raw, policy, request, timeout, metadata)

        return call

    def stream_unary(self, method: str, *_: Any, **__: Any) -> NoReturn:
        """There is no RPC with a stream of requests."""
        raise TypeError(f"{method}: requests are not streamed between services")

    def stream_stream(self, method: str, *_: Any, **__: Any) -> NoReturn:
        """There is no RPC with a stream of requests."""
        raise TypeError(f"{method}: requests are not streamed between services")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Closes the connection."""
        await self._hop.close()
        await self._line.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Returns the state of the connection."""
        return self._line.channel().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Returns when the state is another."""
        await self._line.channel().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Returns when the connection stands."""
        await self._line.channel().channel_ready()


@dataclass(frozen=True, slots=True)
class _Way:
    """How one method of a peer is reached: in frames, or by a unary call of its own on the line."""

    peer: str
    line: Line
    hop: Hop
    policy: Policy
    label: str
    """The method's name, for kill points."""
    serialised: Callable[[Any], bytes]
    deserialised: Callable[[bytes], Any]


class _Outgoing:
    """Makes the calls of one service."""

    def __init__(
        self,
        service: str,
        signer: CallerSigner,
        connect_seconds: float,
        telemetry: Telemetry,
        kill_points: KillPoints,
    ) -> None:
        self._service = service
        self._signer = signer
        self._connect_seconds = connect_seconds
        self._telemetry = telemetry
        self._kill_points = kill_points
        self._log = telemetry.logger("grpc_client")
        seconds = telemetry.histogram(
            "grpc_client_seconds", "Time for a call to a peer by method and outcome", ("method", "outcome")
        )
        # As many as there are methods and kinds of errors.
        self._seconds = lru_cache(None)(seconds.labels)

    async def unary(
        self,
        way: _Way,
        request: Message,
        timeout: float | None = None,
        metadata: Metadata = (),
        who: caller.Caller | None = None,
    ) -> Any:
        """Calls once, and again where the policy allows it, until there is an answer or the deadline.

        What the peer did not begin is called again, whatever the policy: it had no effect. `who` is who `caller.acting`
        says, for whoever has it at hand.
        """
        began = time.monotonic()
        ends = began + _allowed(timeout)
        policy = way.policy
        payload = way.serialised(request)
        who = who or caller.outgoing(self._service)
        repeatable = policy.repeatable or (policy.keyed and who.idempotency_key is not None)
        broken_off = not_sent = 0
        with self._telemetry.calling(policy.method[1:]):
            while True:
                try:
                    stream = way.hop.ready(len(payload)) or await self._stream(way, len(payload), ends)
                    self._kill_points.at("call", "before", way.label)
                    everything = self._metadata(who, way.peer, metadata)
                    if stream is None:
                        plain = way.line.unary(policy.method)
                        response = await plain(payload, timeout=_left(ends), metadata=everything)
                    else:
                        response = await stream.call(policy.method, payload, everything, _left(ends))
                    self._kill_points.at("call", "after", way.label)
                except NotSentError:
                    not_sent += 1
                    if not_sent < _NOT_SENT_ATTEMPTS:
                        await _pause(_PAUSE_SECONDS / 4 * (not_sent - 1), ends)
                        continue
                    failure = self._away(way.peer)
                    self._observe(policy, failure.kind.name.lower(), began)
                    raise failure from None
                except grpc.aio.AioRpcError as error:
                    broken = error.code() is grpc.StatusCode.UNAVAILABLE and not grpc_errors.answered(error)
                    broken_off += broken
                    if broken and repeatable and broken_off < ATTEMPTS:
                        await _pause(_PAUSE_SECONDS * broken_off, ends)
                        continue
                    raise self._failure(policy, error, began, broken=broken) from error
                except GatefoldError as error:
                    self._observe(policy, error.kind.name.lower(), began)
                    raise
                self._observe(policy, "ok", began)
                return way.deserialised(response)

    async def _stream(self, way: _Way, size: int, ends: float) -> Stream | None:
        """Waits for a stream to call on; None when the call is to be made without frames."""
        if await self._connected(way.peer, way.line, ends):
            way.hop.ask_again()
        return await way.hop.stream(size, ends)

    async def stream(
        self,
        peer: str,
        line: Line,
        raw: Callable[[grpc.aio.Channel], Any],
        policy: Policy,
        request: Message,
        timeout: float | None,
        metadata: Metadata,
    ) -> AsyncIterator[Message]:
        """Calls once; what was lost of a stream is for who reads it to ask for again."""
        began = time.monotonic()
        ends = began + _allowed(timeout)
        who = caller.outgoing(self._service)
        label = policy.method.rpartition("/")[2]
        with self._telemetry.calling(policy.method[1:]):
            try:
                await self._connected(peer, line, ends)
                self._kill_points.at("call", "before", label)
                call = raw(line.channel())(request, timeout=_left(ends), metadata=self._metadata(who, peer, metadata))
                try:
                    async for response in call:
                        yield response
                finally:
                    call.cancel()
                self._kill_points.at("call", "after", label)
            except grpc.aio.AioRpcError as error:
                broken = error.code() is grpc.StatusCode.UNAVAILABLE and not grpc_errors.answered(error)
                raise self._failure(policy, error, began, broken=broken) from error
            except GatefoldError as error:
                self._observe(policy, error.kind.name.lower(), began)
                raise
            self._observe(policy, "ok", began)

    async def _connected(self, peer: str, line: Line, ends: float) -> bool:
        """Waits for the connection: as long as it does not stand, nothing was sent and everything may be repeated.

        Answers whether it is a new one.
        """
        channel = line.channel()
        state = channel.get_state(try_to_connect=True)
        if state is grpc.ChannelConnectivity.READY:
            return False
        try:
            async with asyncio.timeout(min(self._connect_seconds, max(0.0, ends - time.monotonic()))):
                while state is not grpc.ChannelConnectivity.READY:
                    await channel.wait_for_state_change(state)
                    channel = line.channel()
                    state = channel.get_state(try_to_connect=True)
        except TimeoutError:
            raise self._away(peer) from None
        return True

    def _away(self, peer: str) -> GatefoldError:
        self._log.warning("peer is away", extra={"peer": peer})
        return errors.unavailable(
            "service_unavailable", "A part of the platform is away for a moment.", 1, metadata={"service": peer}
        )

    def _metadata(self, who: caller.Caller, peer: str, more: Metadata) -> list[tuple[str, str | bytes]]:
        return [
            (CALLER_KEY, self._signer.sign(who, peer)),
            *self._telemetry.headers().items(),
            *more,
        ]

    def _failure(self, policy: Policy, error: grpc.aio.AioRpcError, began: float, *, broken: bool) -> GatefoldError:
        failure = grpc_errors.from_rpc_error(error)
        if broken:
            failure = errors.unavailable("outcome_unknown", "A part of the platform went away during the call.", 1)
        elif failure.reason in _DISTRUST:
            self._log.error("a peer refused this service", extra={"method": policy.method, "reason": failure.reason})
            failure = errors.internal("service_distrusted", "Something failed on our side.")
        self._observe(policy, failure.kind.name.lower(), began)
        return failure

    def _observe(self, policy: Policy, outcome: str, began: float) -> None:
        self._seconds(policy.method, outcome).observe(time.monotonic() - began)


def _allowed(timeout: float | None) -> float:
    """Returns the seconds a call may take: what it asks for, and never more than the request being served has left."""
    wanted = DEADLINE_SECONDS if timeout is None else timeout
    remaining = deadline.remaining()
    return wanted if remaining is None else min(wanted, remaining)


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise errors.timeout("deadline_exceeded", "This took too long; nothing was sent.")
    return left


async def _pause(seconds: float, ends: float) -> None:
    await asyncio.sleep(min(seconds, max(0.0, ends - time.monotonic())))
