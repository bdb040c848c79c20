"""At a terminal a version is found and brought back, also when a rule shuts everybody out of the API."""

import asyncio

import pytest

from libs.clock import FixedClock
from libs.ids import IdMaker
from libs.redis_client import Store
from services.gateway.__main__ import main
from tests.conftest import ServiceDb
from tests.support.rules import Register


async def test_a_version_is_brought_back_at_a_terminal(
    service_db: ServiceDb, redis: Store, clock: FixedClock, ids: IdMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = await service_db("gateway")
    register = Register(opened.app, opened.jobs, redis, clock, ids)
    await register.add_rule("good")
    await register.add_rule("shuts-everybody-out")
    dsn = opened.owner_dsn.reveal()
    environ = {
        "GATEFOLD_POSTGRES_APP_DSN": dsn.replace("gateway_owner", "gateway_app"),
        "GATEFOLD_POSTGRES_JOBS_DSN": dsn.replace("gateway_owner", "gateway_jobs"),
    }

    async def run(*arguments: str) -> tuple[int, str]:
        code = await asyncio.to_thread(main, environ, arguments)
        said = capsys.readouterr()
        return code, said.out + said.err

    code, said = await run("versions")
    assert code == 0
    assert [line.split()[0] for line in said.splitlines()] == ["2", "1"]
    assert "shuts-everybody-out" in said
    code, said = await run("roll-back", "1")
    assert (code, said) == (0, "Version 3 has what version 1 had; gateways take it within a second.\n")
    assert [held.rule.name for held in (await register.rules.list_all())[0]] == ["good"]
    newest = (await register.versions.page(1 << 62, 1))[0]
    assert (newest.made_by, newest.restored_from) == ("service:gateway", 1)
    gateway = register.gateway(database=False)
    assert await register.announcements.announce()
    await gateway.loop.begin()
    assert gateway.version == 3


@pytest.mark.parametrize("arguments", [("roll-back",), ("versions", "1"), ("erase",), ("roll-back", "1", "2")])
def test_other_words_are_answered_with_the_usage(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main({}, arguments) == 2
    assert "usage:" in capsys.readouterr().err


async def test_a_version_that_never_was_is_said_to_be_none(
    service_db: ServiceDb, capsys: pytest.CaptureFixture[str]
) -> None:
    dsn = (await service_db("gateway")).owner_dsn.reveal()
    environ = {f"GATEFOLD_POSTGRES_{role.upper()}_DSN": dsn.replace("owner", role) for role in ("app", "jobs")}
    for number in ("999", "x"):
        assert await asyncio.to_thread(main, environ, ("roll-back", number)) == 1
        assert "version_not_found" in capsys.readouterr().err
