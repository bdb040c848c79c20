"""Owns how the journey calls the public API: as a careful client does, with idempotency keys and patience."""

import asyncio
import io
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

PATIENT_STATUSES = frozenset({409, 429, 502, 503, 504})
LONGEST_PAUSE_SECONDS = 2.0


class JourneyError(Exception):
    """A step did not come to the answer it needs; says which call and what came back."""


@dataclass(frozen=True)
class Answer:
    """What came back: `uncertain` when an earlier try of the same call may have taken effect without an answer."""

    status: int
    body: Any
    uncertain: bool

    @property
    def reason(self) -> str:
        """Stable reason of a problem; empty for a success."""
        return str(self.body.get("reason", "")) if self.status >= 400 and isinstance(self.body, dict) else ""


class Api:
    """Calls one HTTP API; tries again while it is away, always under the same idempotency key."""

    def __init__(self, session: aiohttp.ClientSession, base: str, *, patience_seconds: float) -> None:
        self._session = session
        self._base = base
        self._patience_seconds = patience_seconds

    async def call(
        self,
        method: str,
        path: str,
        *,
        token: str = "",
        key: str = "",
        json: Any = None,
        content: bytes | None = None,
        content_type: str = "",
        form: dict[str, str] | None = None,
    ) -> Answer:
        """Returns the answer, also when it is a problem; raises JourneyError when none came in time."""
        headers = {name: value for name, value in self._headers(token, key, content_type).items() if value}
        until = time.monotonic() + self._patience_seconds
        uncertain, pause, last = False, 0.05, "no answer"
        while True:
            try:
                # A stream of its own for each try: a large body given as bytes would hold the loop.
                data = form if content is None else io.BytesIO(content)
                async with self._session.request(
                    method, self._base + path, headers=headers, json=json, data=data
                ) as response:
                    body = await _read(response)
                    if response.status not in PATIENT_STATUSES or _final(response.status, body):
                        return Answer(response.status, body, uncertain)
                    last = f"{response.status} {body}"
                    # Where nothing was dispatched the service says so with 503; anything later may have had its effect.
                    uncertain = uncertain or response.status in (502, 503, 504)
            except (aiohttp.ClientError, TimeoutError) as error:
                last = type(error).__name__
                uncertain = True
            if time.monotonic() > until:
                raise JourneyError(f"{method} {path}: still {last} after {self._patience_seconds:.0f} s")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def ok(self, method: str, path: str, **options: Any) -> Any:
        """Returns the body of a success; raises JourneyError for a problem."""
        answer = await self.call(method, path, **options)
        if answer.status >= 400:
            raise JourneyError(f"{method} {path} answered {answer.status}: {answer.body}")
        return answer.body

    @staticmethod
    def _headers(token: str, key: str, content_type: str) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {token}" if token else "",
            "Idempotency-Key": key,
            "Content-Type": content_type,
        }


def _final(status: int, body: Any) -> bool:
    """Whether a conflict will stay one: only a call that is still in flight is worth asking again."""
    return status == 409 and not (isinstance(body, dict) and body.get("reason") == "idempotency_in_flight")


async def _read(response: aiohttp.ClientResponse) -> Any:
    if "json" in response.content_type:
        return await response.json(content_type=None)
    return await response.text()
