"""Measures the check of an access token at the edge against PyJWT's bare decoding: at first sight, and again."""

import io
import itertools
import time
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

import jwt

from libs.clock import SystemClock
from libs.telemetry import Telemetry
from services.gateway.http.session_ends import SessionEnds, Streams
from services.gateway.http.tokens import KeySet, Tokens
from tests.bench.harness import Bench
from tests.support.gateway import ISSUER, Signer

TOKENS = 500
ROUND = 20


async def measure(bench: Bench) -> None:
    """Compares both."""
    signer = Signer()
    jwk = signer.jwk()
    document = {"kty": jwk.kty, "crv": jwk.crv, "x": jwk.x, "y": jwk.y, "kid": jwk.kid, "use": "sig", "alg": "ES256"}

    async def fetch(_: str) -> list[dict[str, str]]:
        return [document]

    async def none_ended(cursor: str, _: str) -> tuple[list[UUID], str]:
        return [], cursor

    store, telemetry = cast("Streams", None), Telemetry("bench", stream=io.StringIO())
    ends = SessionEnds(store, none_ended, monotonic=time.monotonic, telemetry=telemetry)
    keys = KeySet(fetch, monotonic=time.monotonic)
    clock = SystemClock()
    until = int(datetime.now(UTC).timestamp()) + 3600
    tokens = [signer.token(jti=f"t{number}", exp=until) for number in range(TOKENS)]
    public = signer.private.public_key()
    unseen, seen = itertools.cycle(tokens), tokens[0]
    known = Tokens(keys, ends, issuer=ISSUER, clock=clock)

    async def first() -> None:
        # A new memory each time: nothing was seen before.
        fresh = Tokens(keys, ends, issuer=ISSUER, clock=clock)
        for token in itertools.islice(unseen, ROUND):
            await fresh.caller(token, "bench")

    async def again() -> None:
        for _ in range(ROUND):
            await known.caller(seen, "bench")

    async def bare() -> None:
        for token in itertools.islice(unseen, ROUND):
            jwt.decode(
                token, public, algorithms=["ES256"], audience="gatefold", issuer=ISSUER, options={"require": ["exp"]}
            )

    await bench.compare(
        "token-check-first", first, bare, named="bare PyJWT ES256 decode", goal=0.8, runs=15, seconds=0.3
    )
    await bench.compare("token-check-again", again, bare, named="bare PyJWT ES256 decode", goal=20.0)
