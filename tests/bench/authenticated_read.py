"""One authenticated read through gateway, gRPC and PostgreSQL, against bare aiohttp and against asyncpg alone."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from infra.local.director import MailView
from infra.local.journey import Api, Journey, WebhookReceiver
from infra.local.secrets import Secrets
from infra.local.settings import ROOT, Place
from infra.local.stack import forget, stores
from libs import ids
from libs.config import Secret
from tests.bench.harness import Bench
from tests.support.stack import StackProcess

UNLIMITED = json.dumps({"read.server": [1_000_000_000, 60], "read.account": [1_000_000_000, 60]})
QUERY = "SELECT id, features, name FROM billing.product WHERE account_id = $1 ORDER BY id DESC LIMIT 21"


async def measure(bench: Bench) -> None:
    """GET /v1/products with a secret key: the key is checked, counted, transcoded, called, read under its tenant."""
    with tempfile.TemporaryDirectory(prefix="gatefold-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        state = Path(folder) / "stack"
        stack = StackProcess(state, extra={"gateway": {"GATEFOLD_RATE_QUOTAS": UNLIMITED}})
        try:
            await _measure(bench, stack.start())
        finally:
            stack.stop()
            forget(Place(state))


async def _measure(bench: Bench, stack: StackProcess) -> None:
    connector = aiohttp.TCPConnector(limit=64)
    async with aiohttp.ClientSession(connector=connector) as session:
        journey = await _set_up(stack, session)
        headers = {"Authorization": f"Bearer {journey.cast.secret_key}"}
        url = f"{stack.endpoints['gateway']}/v1/products"
        async with session.get(url, headers=headers) as response:
            answer = await response.read()
            assert response.status == 200, answer

        async def ours() -> None:
            async with session.get(url, headers=headers) as response:
                assert response.status == 200
                await response.read()

        pool = await _pool(stack)
        account = ids.decode("acct", journey.cast.test_account)

        async def alone() -> None:
            await pool.fetch(QUERY, account)

        try:
            with _bare(answer) as bare_url:

                async def bare() -> None:
                    async with session.get(bare_url, headers=headers) as response:
                        await response.read()

                for concurrency in (1, 64):
                    for name, against, named in (
                        ("http", bare, "bare aiohttp answering the same bytes"),
                        ("sql", alone, "the same query by asyncpg alone"),
                    ):
                        case = f"authenticated-read-{name}-{concurrency}"
                        await bench.compare(case, ours, against, named=named, concurrency=concurrency)
        finally:
            await pool.close()


async def _set_up(stack: StackProcess, session: aiohttp.ClientSession) -> Journey:
    api = Api(session, stack.endpoints["gateway"], patience_seconds=30)
    stripe = Api(session, stack.endpoints["stripe"], patience_seconds=30)
    receiver = WebhookReceiver()
    journey = Journey(stack.scene(), api, stripe, MailView(session, stack.endpoints["mail"]), receiver, name="bench")
    steps = [step for step in journey.setting_up() if step[1] not in (journey.add_webhook, journey.connect_stripe)]
    await journey.run(steps, lambda line: None)
    return journey


@contextmanager
def _bare(answer: bytes) -> Iterator[str]:
    """A handler that does nothing but answer, in a process of its own as the gateway is."""
    command = [sys.executable, "-m", "tests.support.bare_server", answer.decode()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1/products"
        process.stdin.close()


async def _pool(stack: StackProcess) -> Any:
    secrets = Secrets(stack.place.secrets)
    postgres, _ = stores(stack.place, secrets)
    dsn: Secret = postgres.dsn(database="gatefold")
    return await asyncpg.create_pool(dsn.reveal(), min_size=4, max_size=4)
