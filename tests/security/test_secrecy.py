"""No secret, token, password or address in logs, metrics, errors or rows: each house of auth is searched at its end.

What is searched for is every field that the contracts mark `secret`, of every call that a test makes (tests/support).
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from gatefold.auth.v1 import session_pb2

from infra.local.valkey import ValkeyServer
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError
from tests.conftest import ServiceDb
from tests.support import factors
from tests.support.auth import PASSWORD, AuthHouse, running
from tests.support.secrecy import Secrecy


@pytest.fixture
async def house(
    service_db: ServiceDb, keys_dsn: Secret, valkey_server: ValkeyServer, key_file: Path, tmp_path: Path
) -> AsyncIterator[AuthHouse]:
    url = valkey_server.url().reveal()
    database = await service_db("auth")
    async with running(database, keys_dsn.reveal(), url, key_file, tmp_path, FixedClock()) as found:
        yield found


@pytest.mark.case("auth-72")
async def test_a_readers_life_leaves_no_secret_behind(house: AuthHouse) -> None:
    someone, _ = await factors.with_phone(house)
    assert await factors.recovery_codes(house, someone.caller)
    with pytest.raises(GatefoldError):
        await house.sign_in(someone.publisher.live, someone.email, "a wrong password here")
    assert (await someone.sign_in()).pending.token
    await house.check_secrecy()


@pytest.mark.case("auth-72")
async def test_a_secret_that_is_written_anywhere_is_found(house: AuthHouse) -> None:
    publisher = await house.publisher()
    written = house.log.tell()
    house.log.write(PASSWORD)
    with pytest.raises(AssertionError, match="stand in the log"):
        await house.check_secrecy()
    house.log.seek(written)
    house.log.truncate()
    async with house.app.transaction("plant") as conn:
        await conn.execute("UPDATE account SET name = $1 WHERE id = $2", f"about {PASSWORD}", publisher.live)
    with pytest.raises(AssertionError, match="stand in the table account"):
        await house.check_secrecy()
    async with house.app.transaction("take_back") as conn:
        await conn.execute("UPDATE account SET name = 'The Daily' WHERE id = $1", publisher.live)


def test_fields_that_are_marked_are_secrets_and_others_are_not() -> None:
    seen = Secrecy()
    seen.note(session_pb2.Tokens(access_token="a.long.access.token", account_id="acct_of_everybody"))
    seen.check("acct_of_everybody", "here")
    with pytest.raises(AssertionError, match="1 secrets stand in here") as raised:
        seen.check("Bearer a.long.access.token", "here")
    assert "a.long.access.token" not in str(raised.value)
