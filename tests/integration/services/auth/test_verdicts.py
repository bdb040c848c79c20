"""What auth does when sessions or keys are to end for abuse: once, to whom it is about, and no more."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from gatefold.activity.v1 import activity_pb2
from gatefold.auth.v1 import api_key_pb2

from libs import ids
from libs.activity import Pseudonyms
from libs.config import Secret
from libs.errors import GatefoldError
from libs.postgres import PLATFORM
from libs.redis_client import RedisConfig, connect
from libs.telemetry import Telemetry
from services.auth.repository import credentials
from services.auth.usecases.verdicts import Verdicts
from tests.support.auth import AuthHouse
from tests.support.verdicts import verdict
from tests.support.waiting import until

pytestmark = pytest.mark.case("edge-15")

REVOKE = activity_pb2.Verdict.ACTION_REVOKE


def hidden(house: AuthHouse) -> Pseudonyms:
    return Pseudonyms(house.environ["GATEFOLD_KEY_PEPPER"])


def revocation(house: AuthHouse, scope: str, entity: bytes, account: UUID | None = None, **changes: Any) -> Any:
    return verdict(scope, entity, account, house.clock.wall(), **({"action": REVOKE} | changes))


@pytest.fixture
def verdicts(house: AuthHouse) -> Verdicts:
    return Verdicts(house.app, hidden(house), house.clock, Telemetry("auth"))


async def ended(house: AuthHouse, refresh_token: str) -> bool:
    try:
        await house.refresh(refresh_token)
    except GatefoldError:
        return True
    return False


async def test_a_readers_sessions_end_and_nobody_elses(house: AuthHouse, verdicts: Verdicts) -> None:
    publisher = await house.publisher()
    email, other = house.fresh(), house.fresh()
    subject = await house.reader(publisher.live, email)
    await house.reader(publisher.live, other)
    theirs = [await house.sign_in(publisher.live, email) for _ in range(2)]
    spared = await house.sign_in(publisher.live, other)
    told = revocation(house, "actor", hidden(house).of("actor", ids.encode("subj", subject)), publisher.live)
    await verdicts.obey([told])
    assert [await ended(house, tokens.refresh_token) for tokens in theirs] == [True, True]
    assert not await ended(house, spared.refresh_token)
    # Whoever has signed in anew is not thrown out again by what is heard twice.
    again = await house.sign_in(publisher.live, email)
    await verdicts.obey([told, told])
    assert not await ended(house, again.refresh_token)


async def test_a_session_ends_wherever_it_is(house: AuthHouse, verdicts: Verdicts) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.reader(publisher.live, email)
    stolen, kept = await house.sign_in(publisher.live, email), await house.sign_in(publisher.live, email)
    session = str((await house.claims(stolen.access_token))["sid"])
    await verdicts.obey([revocation(house, "session", hidden(house).of("session", session))])
    assert await ended(house, stolen.refresh_token)
    assert not await ended(house, kept.refresh_token)


async def test_a_leaked_key_ends(house: AuthHouse, verdicts: Verdicts) -> None:
    publisher = await house.publisher()
    request = api_key_pb2.CreateApiKeyRequest(
        kind=api_key_pb2.API_KEY_KIND_SECRET, name="server", scopes=["catalogue:read"]
    )
    made = [await house.call(house.staff(publisher.live), house.api_keys.CreateApiKey, request) for _ in range(2)]
    leaked = made[0].api_key.id
    await verdicts.obey([revocation(house, "actor", hidden(house).of("actor", leaked), publisher.live)])
    listed = await house.call(house.staff(publisher.live), house.api_keys.ListApiKeys, api_key_pb2.ListApiKeysRequest())
    assert {
        key.id: key.HasField("revoked_at") for key in listed.data if key.id in {one.api_key.id for one in made}
    } == {
        leaked: True,
        made[1].api_key.id: False,
    }


async def test_a_password_that_was_guessed_is_changed_before_the_next_session(
    house: AuthHouse, verdicts: Verdicts
) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    subject = await house.reader(publisher.live, email)
    tokens = await house.sign_in(publisher.live, email)
    async with house.app.tenant(publisher.live, "look", read_only=True) as conn:
        index = await credentials.index_of(conn, publisher.live, subject)
    assert index is not None
    entity = hidden(house).of("target", publisher.live.hex + index.hex())
    await verdicts.obey([revocation(house, "target", entity, publisher.live)])
    assert await ended(house, tokens.refresh_token)
    async with house.app.tenant(publisher.live, "look", read_only=True) as conn:
        demanded = await conn.fetchval(
            "SELECT password_must_change FROM credential WHERE account_id = $1 AND subject_id = $2",
            publisher.live,
            subject,
        )
    assert demanded


@pytest.mark.parametrize(
    "changes",
    [
        {"shadow": True},
        {"revoked": True},
        {"action": activity_pb2.Verdict.ACTION_BLOCK},
        {"id": "verdict_x"},
        {"account_id": ids.encode("acct", PLATFORM)},
    ],
)
async def test_what_is_not_to_end_anything_ends_nothing(
    house: AuthHouse, verdicts: Verdicts, changes: dict[str, Any]
) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    subject = await house.reader(publisher.live, email)
    tokens = await house.sign_in(publisher.live, email)
    entity = hidden(house).of("actor", ids.encode("subj", subject))
    await verdicts.obey([revocation(house, "actor", entity, publisher.live, **changes)])
    await verdicts.obey([revocation(house, "actor", entity, publisher.live, lasts=timedelta(seconds=-1))])
    assert not await ended(house, tokens.refresh_token)


async def test_the_stream_reaches_auth(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    subject = await house.reader(publisher.live, email)
    tokens = await house.sign_in(publisher.live, email)
    session = str((await house.claims(tokens.access_token))["sid"])
    told = revocation(house, "actor", hidden(house).of("actor", ids.encode("subj", subject)), publisher.live)
    store = connect(RedisConfig(Secret(house.environ["GATEFOLD_REDIS_URL"])))
    try:
        batch = activity_pb2.VerdictBatch(verdicts=[told])
        await asyncio.gather(
            store.xadd("gatefold:verdicts", {"batch": b"\xff"}),
            store.xadd("gatefold:verdicts", {"batch": batch.SerializeToString()}),
        )

        async def over() -> bool:
            async with house.app.tenant(publisher.live, "look", read_only=True) as conn:
                reason = await conn.fetchval(
                    "SELECT revoked_reason FROM session WHERE account_id = $1 AND id = $2",
                    publisher.live,
                    ids.decode("ses", session),
                )
            return bool(reason == "abuse")

        await until(over)
    finally:
        await store.aclose()
