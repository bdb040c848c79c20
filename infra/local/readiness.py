"""Owns waiting until every service is ready, and saying which one is not, and why."""

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from infra.local.logs import tail
from infra.local.settings import Place

_HOPELESS = frozenset({"crash loop", "refused"})
_POLL_SECONDS = 0.05


class NotReadyError(Exception):
    """Says which programs are not ready, why, and the last lines they logged."""


async def wait_ready(place: Place, services: Sequence[str], urls: Sequence[str], seconds: float) -> None:
    """Returns when all services answer /readyz and all `urls` answer; raises NotReadyError."""
    until = time.monotonic() + seconds
    waiting: dict[str, str] = {}
    while True:
        answers = await asyncio.gather(*(_failing(place.admin_socket(name)) for name in services))
        waiting = {name: why for name, why in zip(services, answers, strict=True) if why}
        waiting |= {url: why for url, why in [(url, await _away(url)) for url in urls] if why}
        if not waiting:
            return
        hopeless = {name for name, run in programs(place).items() if run["state"] in _HOPELESS}
        if hopeless or time.monotonic() > until:
            raise NotReadyError(_report(place, waiting, hopeless))
        await asyncio.sleep(_POLL_SECONDS)


def programs(place: Place) -> dict[str, dict[str, Any]]:
    """Returns what the supervisor wrote down last of each program."""
    try:
        found: dict[str, dict[str, Any]] = json.loads(place.status.read_text())["programs"]
    except (FileNotFoundError, ValueError):
        return {}
    return found


async def _failing(socket: Path) -> str:
    """Returns why a service is not ready; empty when it is."""
    try:
        timeout = aiohttp.ClientTimeout(total=3)
        connector = aiohttp.UnixConnector(str(socket))
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get("http://service/readyz") as response,
        ):
            checks = (await response.json())["checks"]
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return "does not answer"
    return ", ".join(f"{name}: {said}" for name, said in checks.items() if said != "ok")


async def _away(url: str) -> str:
    try:
        timeout = aiohttp.ClientTimeout(total=3)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            return "" if response.status < 500 else f"answers {response.status}"
    except (aiohttp.ClientError, OSError, TimeoutError):
        return "does not answer"


def _report(place: Place, waiting: dict[str, str], hopeless: set[str]) -> str:
    runs = programs(place)
    lines = []
    for name in sorted({*waiting, *hopeless}):
        run = runs.get(name, {})
        state = f"{run.get('state', 'unknown')}, {run['last_exit']}" if run.get("last_exit") else run.get("state", "")
        lines.append(f"{name} is not ready: {waiting.get(name) or 'keeps ending'}" + (f" ({state})" if state else ""))
        if run:
            lines.append(f"  last lines of {run['log']}:\n{tail(Path(run['log']), 12)}")
    return "\n".join(lines)
