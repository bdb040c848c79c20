"""Owns what is done at a terminal, for the day on which a rule shuts out those who could take it back."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from gatefold.gateway.v1.firewall_pb2 import RestoreVersionRequest

from libs import caller, config
from libs.clock import SystemClock
from libs.ids import IdMaker
from libs.postgres import Database
from services.gateway.config import CommandConfig
from services.gateway.usecases.changes import Changes
from services.gateway.usecases.versions import Versions
from services.gateway.wiring.rules import checked

_VERSIONS_SHOWN = 20


async def list_versions(environ: Mapping[str, str] | None, _: str) -> str:
    """Returns the newest versions, one a line, for whoever looks for the one to go back to."""
    async with _versions(environ) as versions:
        found = await versions.page(1 << 62, _VERSIONS_SHOWN)
    return "\n".join(
        f"{each.number:>6}  {each.made_at:%Y-%m-%d %H:%M:%S}  {each.change:<22} {each.about}  {each.made_by}"
        for each in found
    )


async def roll_back(environ: Mapping[str, str] | None, number: str) -> str:
    """Brings a version back."""
    wanted = int(number) if number.isascii() and number.isdecimal() and len(number) < 19 else 0
    async with _versions(environ) as versions:
        with caller.serving(caller.service_caller("gateway", None, request_id="roll-back")):
            made = await versions.restore(wanted, RestoreVersionRequest(number=wanted), 0)
    return f"Version {made.number} has what version {number} had; gateways take it within a second."


@asynccontextmanager
async def _versions(environ: Mapping[str, str] | None) -> AsyncIterator[Versions]:
    settings = config.load(CommandConfig, environ).postgres
    clock = SystemClock()
    db = await Database.open(settings.postgres_app_dsn, service="gateway", role="app", pool_size=1)
    try:
        yield Versions(db, Changes(db, clock, IdMaker(clock, os.urandom), checked, lambda: None))
    finally:
        await db.close()
