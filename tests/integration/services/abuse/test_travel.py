"""Real sign-ins from far apart, as auth tells of them, become a finding in the running service; a known device none."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from gatefold.activity.v1 import activity_pb2
from gatefold.auth.v1 import session_pb2, subscriber_session_pb2

from infra.local.valkey import ValkeyServer
from libs import ids
from libs.activity import Pseudonyms
from libs.clock import FixedClock, SystemClock
from libs.config import Secret
from libs.errors import GatefoldError
from libs.redis_client import RedisConfig, Store, connect
from services.abuse.domain.finding import Scope
from tests.conftest import ServiceDb
from tests.support import abuse, auth
from tests.support.activity_streams import activities
from tests.support.auth import PASSWORD, AuthHouse
from tests.support.places import write_places
from tests.support.stores import ServiceDatabase
from tests.support.waiting import until

pytestmark = pytest.mark.case("edge-15")

BERLIN, SYDNEY = "203.0.113.7", "198.51.100.7"
AGENT = "Mozilla/5.0 (X11; Linux) Firefox/131.0"
HIDDEN = Pseudonyms(abuse.PEPPER)


@dataclass
class Both:
    """auth and abuse on one store."""

    auth: AuthHouse
    verdicts: ServiceDatabase
    store: Store

    async def sign_in(self, account: UUID, email: str, address: str, device: str = "") -> session_pb2.Tokens:
        """Signs a reader in, a minute after whatever was before."""
        assert isinstance(self.auth.clock, FixedClock)
        self.auth.clock.advance(timedelta(seconds=1))
        who = replace(self.auth.page(account), address=address, user_agent=AGENT)
        request = subscriber_session_pb2.SignInRequest(email=email, password=PASSWORD, device_token=device)
        answer = await self.auth.call(who, self.auth.readers.SignIn, request)
        assert isinstance(answer, session_pb2.Tokens)
        return answer

    async def told(self, account: UUID, number: int) -> list[activity_pb2.Activity]:
        """Returns the account's sign-ins once so many were told of."""
        text = ids.encode("acct", account)
        found: list[activity_pb2.Activity] = []

        async def all_there() -> bool:
            found[:] = [
                one
                for one in await activities(self.store)
                if one.account_id == text and one.event_name == "sign_in.password"
            ]
            return len(found) >= number

        await until(all_there)
        return found

    async def findings(self, account: UUID) -> list[str]:
        async with self.verdicts.app.tenant(account, "look", read_only=True) as conn:
            rows = await conn.fetch(
                "SELECT detector, action FROM verdict WHERE account_id = $1 AND scope = $2",
                account,
                Scope.TARGET.value,
            )
        return [f"{row['detector']}:{row['action']}" for row in rows]


@pytest.fixture(scope="module")
async def both(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    run_directory: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Both]:
    folder, url, keys = tmp_path_factory.mktemp("travel"), valkey_server.url(), keys_dsn.reveal()
    clock = FixedClock()
    clock.set(SystemClock().wall() - timedelta(minutes=2))
    settings = {"GATEFOLD_PLACES_DATABASE": str(write_places(folder))}
    verdicts, store = await service_db("abuse"), connect(RedisConfig(url))
    await store.flushall()
    async with (
        auth.running(await service_db("auth"), keys, url.reveal(), key_file, folder, clock, settings) as house,
        abuse.running(verdicts, keys, url.reveal(), key_file, run_directory / "travel", folder / "objects"),
    ):
        yield Both(house, verdicts, store)
    await store.aclose()


async def test_a_sign_in_tells_who_where_and_on_which_device(both: Both) -> None:
    publisher = await both.auth.publisher()
    account, email = publisher.live, both.auth.fresh()
    subject = await both.auth.reader(account, email)
    first = await both.sign_in(account, email, BERLIN)
    second = await both.sign_in(account, email, BERLIN, first.device_token)
    await both.sign_in(account, email, BERLIN, second.device_token)
    fresh, again, thrice = await both.told(account, 3)
    assert fresh.actor_hash == HIDDEN.of("actor", ids.encode("subj", subject))
    assert (fresh.geo_location_lat, fresh.geo_location_lon, fresh.geo_country_iso_code) == (53, 13, "DE")
    # A device is one that showed to have been there before, and keeps its name from sign-in to sign-in.
    assert fresh.device_hash == b""
    assert len(again.device_hash) == 16
    assert again.device_hash == thrice.device_hash


async def test_a_wrong_password_says_nobodys_name(both: Both) -> None:
    publisher = await both.auth.publisher()
    account, email = publisher.live, both.auth.fresh()
    await both.auth.reader(account, email)
    request = subscriber_session_pb2.SignInRequest(email=email, password="not the password at all")
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await both.auth.call(replace(both.auth.page(account), address=SYDNEY), both.auth.readers.SignIn, request)
    [one] = await both.told(account, 1)
    assert (one.http_response_status_code, one.actor_hash) == (401, b"")
    assert (one.geo_location_lat, one.geo_location_lon) == (-34, 151)


async def test_two_sign_ins_from_far_apart_make_a_finding_and_two_from_one_place_none(both: Both) -> None:
    publisher = await both.auth.publisher()
    account = publisher.live
    at_home, away = both.auth.fresh(), both.auth.fresh()
    for email in (at_home, away):
        await both.auth.reader(account, email)
    for address in (BERLIN, BERLIN):
        await both.sign_in(account, at_home, address)
    for address in (BERLIN, SYDNEY):
        await both.sign_in(account, away, address)

    async def found() -> bool:
        return bool(await both.findings(account))

    await until(found)
    assert await both.findings(account) == ["impossible-travel:challenge"]
