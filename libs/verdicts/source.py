"""Owns hearing of the abuse service's verdicts: by its stream, and by asking for what the stream may have lost."""

from collections.abc import Sequence
from typing import Any

from gatefold.abuse.v1 import verdict_pb2, verdict_pb2_grpc
from gatefold.activity.v1 import activity_pb2
from google.protobuf.message import DecodeError

from libs import caller
from libs.events import listening
from libs.grpc_client import Channels
from libs.redis_client import Store

STREAM = "gatefold:verdicts"
"""The abuse service writes it (services/abuse/clients/verdict_feed.py)."""
FIELD = b"batch"


class VerdictSource:
    """The stream of verdicts, and the service behind it."""

    def __init__(self, service: str, store: Store, channels: Channels) -> None:
        """`store` is a connection of its own, since reading the stream waits on it."""
        self._service = service
        self._store = store
        self._stub: Any = verdict_pb2_grpc.VerdictServiceStub(channels.channel("abuse"))

    async def read(self, last: listening.Last) -> tuple[list[activity_pb2.Verdict], listening.Last]:
        """Returns what the stream tells after an entry, and the last one; raises `unavailable` and TimeoutError."""
        told, last = await listening.read(self._store, STREAM, last)
        found: list[activity_pb2.Verdict] = []
        for fields in told:
            try:
                found += activity_pb2.VerdictBatch.FromString(fields.get(FIELD, b"")).verdicts
            except DecodeError:
                # What it should have told is asked for anyway.
                continue
        return found, last

    async def ask(self, cursor: str) -> tuple[Sequence[activity_pb2.Verdict], str]:
        """Returns verdicts that changed after a cursor, and the next; raises what keeps the service away."""
        with caller.acting(caller.service_caller(self._service, None, request_id="verdicts")):
            answer: verdict_pb2.ListVerdictsResponse = await self._stub.ListVerdicts(
                verdict_pb2.ListVerdictsRequest(cursor=cursor), timeout=2.0
            )
        return answer.verdicts, answer.next_cursor
