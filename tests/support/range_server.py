"""Owns a server of the range protocol for breached passwords, as Have I Been Pwned documents it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer


@dataclass
class RangeServer:
    """What it knows and was asked; `url` is where it listens."""

    known: set[str] = field(default_factory=set)
    asked: list[tuple[str, bool]] = field(default_factory=list)
    """Prefixes, and whether padding was asked for."""
    unchanged: int = 0
    """How often the answer was that nothing has changed."""
    broken: bool = False
    gate: asyncio.Event | asyncio.Barrier | None = None
    """What answers wait for, when there is one."""
    url: str = ""

    def learn(self, *passwords: str) -> None:
        """Has passwords breached."""
        self.known.update(hashlib.sha1(each.encode()).hexdigest().upper() for each in passwords)

    async def answer(self, request: web.Request) -> web.Response:
        """Answers `GET /range/{prefix}`."""
        prefix, padded = request.match_info["prefix"], request.headers.get("Add-Padding") == "true"
        self.asked.append((prefix, padded))
        if self.gate is not None:
            await self.gate.wait()
        if self.broken:
            return web.Response(status=500)
        lines = [f"{each[5:]}:{number}" for number, each in enumerate(sorted(self.known), 1) if each.startswith(prefix)]
        etag = f'"{hashlib.sha1(repr(lines).encode()).hexdigest()}"'
        if request.headers.get("If-None-Match") == etag:
            self.unchanged += 1
            return web.Response(status=304)
        if padded:
            lines += [f"{hashlib.sha1(f'{prefix}{number}'.encode()).hexdigest().upper()[5:]}:0" for number in range(50)]
        return web.Response(text="\r\n".join(lines), headers={"ETag": etag})


@asynccontextmanager
async def serving() -> AsyncIterator[RangeServer]:
    """Runs one on a free port of loopback."""
    found = RangeServer()
    app = web.Application()
    app.router.add_get("/range/{prefix}", found.answer)
    async with TestServer(app) as server:
        found.url = str(server.make_url("")).rstrip("/")
        yield found
