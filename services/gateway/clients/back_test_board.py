"""Owns how gateways are asked to try an expression, and how their answers come back: through the store."""

from typing import Any

from gatefold.gateway.v1 import bundle_pb2
from google.protobuf.message import DecodeError

from libs.events import listening
from libs.events.listening import Last
from libs.redis_client import Store

STREAM = "gatefold:back_tests"
FIELD = b"question"
MOST_QUESTIONS = 100
KEEP_SECONDS = 30
_PATIENCE_SECONDS = 3.0


class BackTestBoard:
    """Questions and answers."""

    def __init__(self, store: Store, blocking: Store) -> None:
        """`blocking` is a client of its own, for reads that wait."""
        self._store = store
        self._blocking = blocking

    async def ask(self, question: bundle_pb2.BackTestQuestion) -> None:
        """Puts a question to all gateways; raises `unavailable("store_unavailable")`."""
        await self._store.xadd(STREAM, {FIELD: question.SerializeToString()}, maxlen=MOST_QUESTIONS, approximate=True)

    async def answer(self, question: str, answer: bundle_pb2.BackTestAnswer) -> None:
        """Answers a question."""
        pipeline = self._store.pipeline()
        pipeline.rpush(_answers(question), answer.SerializeToString())
        pipeline.expire(_answers(question), KEEP_SECONDS)
        await pipeline.execute()

    async def answers(self, question: str) -> list[bundle_pb2.BackTestAnswer]:
        """Returns the answers that have come so far."""
        found = []
        packed_answers: Any = await self._store.lrange(_answers(question), 0, 999)
        for packed in packed_answers:
            try:
                found.append(bundle_pb2.BackTestAnswer.FromString(packed))
            except DecodeError:
                continue
        return found

    async def questions(self, last: Last) -> tuple[list[bundle_pb2.BackTestQuestion], Last]:
        """Waits a moment for questions behind `last` (`b"0"` is the beginning); raises as BundleFeed.after."""
        told, last = await listening.read(self._blocking, STREAM, last, count=8, patience_seconds=_PATIENCE_SECONDS)
        found = []
        for fields in told:
            try:
                found.append(bundle_pb2.BackTestQuestion.FromString(fields.get(FIELD, b"")))
            except DecodeError:
                continue
        return found, last


def _answers(question: str) -> str:
    return f"gatefold:back_test:{question}"
