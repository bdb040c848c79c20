"""Owns an operator of the platform for tests: a gateway over a database of rules, and what operators ask it."""

import io
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libs.config import Secret
from tests.support.gateway import Answer, RunningGateway, Signer, running_gateway
from tests.support.stores import TestPostgres
from tests.support.waiting import until

WIDE = json.dumps(
    {name: [100_000, 60] for name in ("strict.address", "read.address", "write.person", "read.person", "bulk.person")}
)
BLOCK = {"name": "bad-agent", "expression": 'request.user_agent.contains("bad")', "action": "block"}


@dataclass
class Operator:
    """Somebody with a second factor, freshly proven."""

    gateway: RunningGateway
    token: str

    async def ask(self, verb: str, path: str, *, key: str | None = None, **rest: Any) -> Answer:
        """Asks under /v1/firewall."""
        headers: Mapping[str, str] = {"Idempotency-Key": key} if key else {}
        return await self.gateway.ask(verb, f"/v1/firewall{path}", credential=self.token, headers=headers, **rest)

    async def done(self, verb: str, path: str, **rest: Any) -> Any:
        """Asks and expects success; returns what was answered."""
        answer = await self.ask(verb, path, **rest)
        assert answer.status == 200, answer.body
        return answer.json

    async def version(self) -> int:
        """Returns the newest version."""
        return int((await self.done("GET", "/rules"))["version"])

    async def list_of(self, name: str, kind: str = "networks", lines: str = "") -> str:
        """Makes a list with these lines; returns its id."""
        made = await self.done("POST", "/lists", json={"name": name, "kind": kind})
        if lines:
            await self.imported(made["id"], lines)
        return str(made["id"])

    async def imported(self, key: str, lines: str | bytes, query: str = "") -> Answer:
        """Imports lines into a list."""
        return await self.gateway.ask(
            "POST",
            f"/v1/firewall/lists/{key}/import{query}",
            credential=self.token,
            headers={"Content-Type": "text/plain"},
            data=io.BytesIO(lines if isinstance(lines, bytes) else lines.encode()),
            # Whoever is refused by the size that is stated sends nothing.
            expect100=True,
        )


@asynccontextmanager
async def running_operator(
    directory: Path,
    redis_url: Secret,
    postgres: TestPostgres,
    database: str,
    *,
    signer: Signer | None = None,
    **environ: str,
) -> AsyncIterator[Operator]:
    """Runs a gateway that serves its rules from a database, with an operator; returns once it does."""
    settings = {
        "postgres_app_dsn": postgres.dsn(database, "gateway_app").reveal(),
        "postgres_jobs_dsn": postgres.dsn(database, "gateway_jobs").reveal(),
        "bundle_file": str(directory / f"bundle-{os.urandom(3).hex()}" / "bundle"),
        "rate_quotas": WIDE,
        **environ,
    }
    async with running_gateway(directory, redis_url, background=True, signer=signer, **settings) as gateway:
        operator = Operator(gateway, gateway.backend.signer.operator(acr="aal2"))

        async def serves() -> bool:
            return (await operator.ask("GET", "/rules")).status == 200

        await until(serves)
        yield operator
