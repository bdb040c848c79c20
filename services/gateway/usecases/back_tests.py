"""Owns trying an expression on recent requests: asking all gateways, and answering for this one."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any

from gatefold.gateway.v1 import bundle_pb2

from libs.clock import WallClock
from libs.errors import GatefoldError
from libs.ids import IdSource
from services.gateway.clients.back_test_board import BackTestBoard
from services.gateway.clients.roll_call import RollCall
from services.gateway.domain.lookback import Lookback, Trial
from services.gateway.usecases import present

PATIENCE = timedelta(seconds=3)
"""How long slow gateways are waited for."""
_LOOK_SECONDS = 0.05

Matcher = Callable[[str], Callable[[Any], bool]]
"""Returns what tells whether an expression matches a request's fields; raises `invalid` for what is no expression."""


@dataclass(frozen=True)
class BackTest:
    """What came of a trial."""

    trial: Trial
    gateways: int
    answered: int


class BackTests:
    """Trials over all gateways. What they keep of requests never leaves them: numbers come back."""

    def __init__(
        self,
        board: BackTestBoard,
        roll_call: RollCall,
        lookback: Lookback[Any],
        matcher: Matcher,
        clock: WallClock,
        id_source: IdSource,
    ) -> None:
        self._board = board
        self._roll_call = roll_call
        self._lookback = lookback
        self._matcher = matcher
        self._clock = clock
        self._ids = id_source

    async def run(self, expression: str) -> BackTest:
        """Asks all gateways and adds their answers up; raises `unavailable` while the store is away, and the
        matcher's `invalid` for what is no expression.
        """
        await asyncio.to_thread(self._matcher, expression)
        now = self._clock.wall()
        known = len(await self._roll_call.present(now))
        question = bundle_pb2.BackTestQuestion(
            id=self._ids.new().hex, expression=expression, until=present.timestamp(now + PATIENCE)
        )
        await self._board.ask(question)
        answers: list[bundle_pb2.BackTestAnswer] = []
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                while len(answers) < max(known, 1):
                    # The store tells nobody when an answer came.
                    await asyncio.sleep(_LOOK_SECONDS)
                    answers = await self._board.answers(question.id)
        except TimeoutError:
            pass
        total = sum((_trial(answer) for answer in answers), Trial())
        return BackTest(total, max(known, len(answers)), len(answers))

    async def answer(self, question: bundle_pb2.BackTestQuestion) -> None:
        """Answers for this gateway, unless nobody waits any more or the expression is none here."""
        if present.moment(question, "until") is None or question.until.ToDatetime(tzinfo=UTC) <= self._clock.wall():
            return
        try:
            matches = await asyncio.to_thread(self._matcher, question.expression)
        except GatefoldError:
            return
        total = Trial()
        for trial in self._lookback.trials(matches):
            total += trial
            # A minute's sample at a time: requests are served in between.
            await asyncio.sleep(0)
        answer = bundle_pb2.BackTestAnswer(
            seen=total.seen,
            sampled=total.sampled,
            matched=total.matched,
            estimated=total.estimated,
            since=present.timestamp(total.since),
        )
        await self._board.answer(question.id, answer)


def _trial(answer: bundle_pb2.BackTestAnswer) -> Trial:
    return Trial(answer.seen, answer.sampled, answer.matched, answer.estimated, present.moment(answer, "since"))
