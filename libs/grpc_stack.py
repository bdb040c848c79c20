"""Owns what stands around every served method: trace, caller, policy, closed mode, errors, measurement."""

import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import lru_cache
from typing import Any, NoReturn, TypeAlias, cast

import grpc
from google.protobuf.message import Message
from opentelemetry import context as otel_context
from opentelemetry import trace

from libs import admission, caller, deadline, errors, grpc_errors
from libs.caller import CallerVerifier
from libs.errors import GatefoldError, Kind
from libs.policies import Policy
from libs.telemetry import Telemetry

CALLER_KEY = "gatefold-caller"

Context = grpc.aio.ServicerContext[Any, Any]
Unary = Callable[[Message, Context], Awaitable[Message]]
Stream = Callable[[Message, Context], AsyncIterator[Message]]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # subscriptable in its stubs alone


class Stack:
    """Wraps the methods of one service; what a method's policy says is looked up once, not at each call."""

    def __init__(self, verifier: CallerVerifier, telemetry: Telemetry, *, closed: bool, tls: bool) -> None:
        self._verifier = verifier
        self._closed = closed
        self._tls = tls
        self._telemetry = telemetry
        self._log = telemetry.logger("grpc_server")
        seconds = telemetry.histogram(
            "grpc_server_seconds", "Time to answer a call by method and outcome", ("method", "outcome")
        )
        # As many as there are methods and kinds of errors.
        self._seconds = lru_cache(None)(seconds.labels)

    def around(self, policy: Policy, handler: Handler) -> Handler:
        """Returns the handler with the stack around it; raises TypeError for a method that is not asynchronous."""
        if inspect.iscoroutinefunction(handler.unary_unary):
            return grpc.unary_unary_rpc_method_handler(
                self._unary(policy, cast("Unary", handler.unary_unary)),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if inspect.isasyncgenfunction(handler.unary_stream):
            return grpc.unary_stream_rpc_method_handler(
                self._stream(policy, cast("Stream", handler.unary_stream)),
                handler.request_deserializer,
                handler.response_serializer,
            )
        raise TypeError(f"{policy.method} must be an async def, or an async generator when it streams its answer")

    def carrying(self, policy: Policy, behaviour: Callable[[Context], Awaitable[None]]) -> Handler:
        """Returns the handler of a stream that carries calls: who opens it is checked here, and then each call in it.

        It is neither traced nor measured: it lasts as long as the two services do.
        """

        async def answer(_: object, context: Context) -> None:
            try:
                self._admit(policy, _metadata(context), context)
            except GatefoldError as error:
                await _abort(context, error)
            await behaviour(context)

        return grpc.stream_stream_rpc_method_handler(cast("Any", answer))

    def _unary(self, policy: Policy, behaviour: Unary) -> Unary:
        async def answer(request: Message, context: Context) -> Message:
            call = _Call(self._telemetry, policy, context)
            try:
                self._admit(policy, call.metadata, context)
                response = await behaviour(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 — the one place where errors become statuses
                failure = self._failure(policy, error)
            else:
                self._seconds(policy.method, "ok").observe(call.end())
                return response
            finally:
                call.span.end()
            self._seconds(policy.method, failure.kind.name.lower()).observe(call.end())
            return await _abort(context, failure)

        return answer

    def _stream(self, policy: Policy, behaviour: Stream) -> Stream:
        async def answer(request: Message, context: Context) -> AsyncIterator[Message]:
            call = _Call(self._telemetry, policy, context)
            try:
                self._admit(policy, call.metadata, context)
                async with aclosing(cast("Any", behaviour(request, context))) as responses:
                    async for response in responses:
                        yield response
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 — as above
                failure = self._failure(policy, error)
            else:
                self._seconds(policy.method, "ok").observe(call.end())
                return
            finally:
                call.span.end()
            self._seconds(policy.method, failure.kind.name.lower()).observe(call.end())
            await _abort(context, failure)

        return answer

    def _admit(self, policy: Policy, metadata: Mapping[str, str], context: Context) -> None:
        """Sets the caller for the rest of the call's task, when it may make this call."""
        token = metadata.get(CALLER_KEY)
        if not token:
            raise errors.unauthenticated("caller_required", "A call between services must say for whom it is.")
        issuer, who = self._verifier.verify(token)
        if self._tls and issuer not in _peer_names(context):
            raise errors.unauthenticated("caller_not_peer", "The caller was not signed by who connected.")
        # Each call runs in a task of its own, so nothing needs to be put back.
        caller.enter(who)
        remaining = context.time_remaining()
        if remaining is not None:
            deadline.enter(remaining)
        admission.admit(policy, issuer, who, closed=self._closed)

    def _failure(self, policy: Policy, error: Exception) -> GatefoldError:
        if isinstance(error, GatefoldError):
            if error.kind is Kind.INTERNAL:
                self._log.error("method failed", exc_info=error, extra={"method": policy.method})
            return error
        self._log.error("method failed", exc_info=error, extra={"method": policy.method})
        # What happened inside stays in the log.
        return errors.internal("internal_error", "Something failed on our side.")


class _Call:
    """One call's metadata, span and stopwatch."""

    def __init__(self, telemetry: Telemetry, policy: Policy, context: Context) -> None:
        self._began = time.monotonic()
        self.metadata = _metadata(context)
        self.span = telemetry.serving(policy.method[1:], self.metadata)
        if self.span is not trace.INVALID_SPAN:
            otel_context.attach(trace.set_span_in_context(self.span))

    def end(self) -> float:
        """Returns the seconds since the call began."""
        return time.monotonic() - self._began


def _metadata(context: Context) -> dict[str, str]:
    pairs = cast("list[tuple[str, str | bytes]]", context.invocation_metadata() or ())
    return {key: value for key, value in pairs if isinstance(value, str)}


def _peer_names(context: Context) -> frozenset[str]:
    """Returns the names in the certificate that the other side proved to hold (RFC 9525: the CN counts only alone)."""
    identity = context.auth_context()
    names = identity.get("x509_subject_alternative_name") or identity.get("x509_common_name") or ()
    return frozenset(name.decode(errors="replace") for name in names)


async def _abort(context: Context, error: GatefoldError) -> NoReturn:
    status = grpc_errors.to_status(error)
    await context.abort(
        grpc_errors.code_of(error.kind), status.message, ((grpc_errors.DETAILS_KEY, status.SerializeToString()),)
    )
