"""auth as a process of its own: its commands, and verification when it is killed at each point on the way."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from infra.local.valkey import ValkeyServer
from libs.config import Secret
from tests.conftest import ServiceDb
from tests.support.auth import AuthHouse
from tests.support.auth_process import ServiceProcess, around_auth
from tests.support.edge import Edge, running_edge, until_refused
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[4]


async def python(environ: Mapping[str, str], *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.auth",
        *arguments,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.fixture
async def house(
    service_db: ServiceDb, keys_dsn: Secret, valkey_server: ValkeyServer, key_file: Path, tmp_path: Path
) -> AsyncIterator[AuthHouse]:
    """What a process of auth needs around it; the process itself is started by the test."""
    database, url = await service_db("auth"), valkey_server.url().reveal()
    async with around_auth(database, keys_dsn.reveal(), url, key_file, tmp_path) as found:
        yield found


@asynccontextmanager
async def supervised(environ: Mapping[str, str]) -> AsyncIterator[list[int]]:
    """Runs auth and starts it again when it dies; yields the exit codes so far."""
    codes: list[int] = []
    child = await python(environ)

    async def watch() -> None:
        nonlocal child
        while True:
            await child.communicate()
            codes.append(child.returncode or 0)
            child = await python(environ)

    watching = asyncio.create_task(watch())
    try:
        yield codes
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        child.terminate()
        await child.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [
        "auth:after-commit:register",
        "auth:before-call:EnsureSubject",
        "auth:after-call:EnsureSubject",
        "auth:before-commit:verify_registration",
        "auth:after-commit:verify_registration",
        "auth:after-commit:sign_in",
    ],
)
async def test_killed_anywhere_a_registration_is_finished_once(house: AuthHouse, point: str, tmp_path: Path) -> None:
    environ = {**house.environ, "GATEFOLD_KILL_AT": point, "GATEFOLD_KILL_LOG": str(tmp_path / "points")}
    async with supervised(environ) as codes:
        opened = await house.publisher()
        email = house.fresh(point.rpartition(":")[2].lower())
        # The edge repeats what may be repeated, under the same request id, when the connection breaks.
        subject = await house.reader(opened.live, email)
        tokens = await house.sign_in(opened.live, email)
        assert (await house.claims(tokens.access_token))["sub"] == tokens.principal_id
    assert codes == [-9]
    events = await house.events(opened.live)
    assert (events.count("subscriber.registered"), events.count("challenge.requested")) == (1, 2), "one mail each"
    async with house.app.tenant(opened.live, "count") as conn:
        assert await conn.fetchval("SELECT count(*) FROM credential WHERE subject_id = $1", subject) == 1


@pytest.mark.case("auth-71")
async def test_the_bootstrap_command_prints_one_token_and_nothing_else(house: AuthHouse) -> None:
    child = await python(house.environ, "bootstrap-operator")
    out, err = await child.communicate()
    assert (child.returncode, err) == (0, b"")
    assert out.startswith(b"gfbt_")
    assert len(out) == len("gfbt_") + 64 + 1
    async with house.app.transaction("count") as conn:
        assert await conn.fetchval("SELECT count(*) FROM bootstrap_token WHERE spent_at IS NULL") == 1
        assert await conn.fetchval("SELECT count(*) FROM person WHERE operator") == 0


async def test_an_unknown_command_and_a_missing_setting_are_named(house: AuthHouse) -> None:
    child = await python(house.environ, "make-coffee")
    _, err = await child.communicate()
    assert child.returncode == 2
    assert b"bootstrap-operator" in err
    without = {name: value for name, value in house.environ.items() if name != "GATEFOLD_PASSWORD_PEPPER"}
    child = await python(without)
    _, err = await child.communicate()
    assert child.returncode == 78
    assert b"GATEFOLD_PASSWORD_PEPPER is missing" in err


async def test_a_young_signing_key_is_not_rotated_in_by_the_command(house: AuthHouse) -> None:
    child = await python(house.environ, "rotate-signing-key")
    _, err = await child.communicate()
    assert child.returncode == 1
    assert b"next_key_too_young" in err


@pytest.mark.slow
@pytest.mark.case("auth-49")
@pytest.mark.parametrize("when", ["before", "after"])
async def test_killed_between_the_end_of_a_session_and_its_telling_auth_tells_gateways_once_it_is_back(
    house: AuthHouse, tmp_path: Path, when: str
) -> None:
    point = {"GATEFOLD_KILL_AT": f"auth:{when}-publish:announce_session_ends", "GATEFOLD_KILL_LOG": str(tmp_path / "p")}
    auth = ServiceProcess("auth", {**house.environ, **point}, tmp_path)
    await auth.start()
    try:
        async with running_edge(house) as one, running_edge(house) as other:
            opened = await house.publisher()
            email = house.fresh()
            await house.reader(opened.live, email)
            ended, kept = await house.sign_in(opened.live, email), await house.sign_in(opened.live, email)
            for edge in (one, other):
                assert (await edge.devices(ended.access_token)).status == 200
            await one.ask("POST", "/v1/session/sign_out", credential=ended.access_token, json={})
            assert await auth.ended() == -9
            await auth.start()

            async def taken(edge: Edge) -> bool:
                return (await edge.devices(kept.access_token)).status == 200

            for edge in (one, other):
                assert (await until_refused(edge, ended.access_token, 60)).reason == "session_ended"
                # Once the gateway has found auth again.
                await until(lambda edge=edge: taken(edge))
    finally:
        await auth.stop()
