"""Attacks on API keys: their form, what is stored, whose they are, what they may do, and how fast they end."""

import hmac
import re
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from gatefold.auth.v1 import api_key_pb2

from infra.local.valkey import ValkeyServer
from libs import ids
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError, Kind
from services.auth.domain import roles
from services.auth.domain.api_key import well_formed
from tests.conftest import ServiceDb
from tests.support.auth import AuthHouse, running

SECRET = api_key_pb2.API_KEY_KIND_SECRET
PUBLISHABLE = api_key_pb2.API_KEY_KIND_PUBLISHABLE


@pytest.fixture(scope="module")
async def house(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[AuthHouse]:
    database, folder = await service_db("auth"), tmp_path_factory.mktemp("auth")
    url = valkey_server.url().reveal()
    async with running(database, keys_dsn.reveal(), url, key_file, folder, FixedClock()) as found:
        yield found


async def create(
    house: AuthHouse,
    account: UUID,
    kind: api_key_pb2.ApiKeyKind = SECRET,
    scopes: tuple[str, ...] = (),
    *,
    role: str = roles.OWNER,
    live: bool = True,
) -> api_key_pb2.CreateApiKeyResponse:
    request = api_key_pb2.CreateApiKeyRequest(kind=kind, name="Server", scopes=scopes)
    answer = await house.call(house.staff(account, role, live=live), house.api_keys.CreateApiKey, request)
    assert isinstance(answer, api_key_pb2.CreateApiKeyResponse)
    return answer


async def resolve(house: AuthHouse, key: str) -> api_key_pb2.ResolveApiKeyResponse:
    # As the gateway does it: HMAC-SHA-256 of the key under the pepper that both know.
    pepper = house.environ["GATEFOLD_KEY_PEPPER"].encode()
    request = api_key_pb2.ResolveApiKeyRequest(hash=hmac.digest(pepper, key.encode(), "sha256"))
    answer = await house.call(house.service("gateway"), house.api_keys.ResolveApiKey, request)
    assert isinstance(answer, api_key_pb2.ResolveApiKeyResponse)
    return answer


async def revoke(house: AuthHouse, account: UUID, key: str) -> api_key_pb2.ApiKey:
    request = api_key_pb2.RevokeApiKeyRequest(id=key)
    answer = await house.call(house.staff(account), house.api_keys.RevokeApiKey, request)
    assert isinstance(answer, api_key_pb2.ApiKey)
    return answer


async def listed(house: AuthHouse, account: UUID) -> list[api_key_pb2.ApiKey]:
    answer = await house.call(house.staff(account), house.api_keys.ListApiKeys, api_key_pb2.ListApiKeysRequest())
    assert isinstance(answer, api_key_pb2.ListApiKeysResponse)
    return list(answer.data)


@pytest.mark.case("auth-67")
async def test_a_key_is_shown_once_and_stored_as_a_keyed_hash(house: AuthHouse) -> None:
    publisher = await house.publisher()
    made = await create(house, publisher.live)
    assert re.fullmatch(r"gfsk_live_[0-9A-Za-z]{49}", made.secret)
    assert well_formed(made.secret)
    (shown,) = await listed(house, publisher.live)
    assert shown == made.api_key
    assert made.secret not in str(shown)
    assert made.secret.startswith(shown.prefix)
    assert made.secret.endswith(shown.last_four)
    assert (len(shown.prefix), len(shown.last_four)) == (14, 4)
    async with house.app.tenant(publisher.live, "dump") as conn:
        rows = [
            *await conn.fetch("SELECT api_key::text FROM api_key"),
            *await conn.fetch("SELECT api_key_route::text FROM api_key_route"),
        ]
    body = made.secret.removeprefix("gfsk_live_")
    assert rows
    assert all(body[5:-5] not in row[0] for row in rows)
    assert body not in house.log.getvalue()


async def test_a_key_resolves_to_its_account_and_mode(house: AuthHouse) -> None:
    publisher = await house.publisher()
    live = await create(house, publisher.live, scopes=("catalogue:read",))
    test = await create(house, publisher.test, PUBLISHABLE, live=False)
    assert test.secret.startswith("gfpk_test_")
    found = await resolve(house, live.secret)
    assert (found.account_id, found.api_key) == (ids.encode("acct", publisher.live), live.api_key)
    assert (found.api_key.live, list(found.api_key.scopes)) == (True, ["catalogue:read"])
    found = await resolve(house, test.secret)
    assert (found.account_id, found.api_key.live) == (ids.encode("acct", publisher.test), False)
    assert (found.api_key.kind, list(found.api_key.scopes)) == (PUBLISHABLE, ["access:read"])


@pytest.mark.case("auth-69")
async def test_a_revoked_key_is_unknown_at_once_and_the_other_still_works(house: AuthHouse) -> None:
    publisher = await house.publisher()
    older, newer = await create(house, publisher.live), await create(house, publisher.live)
    await resolve(house, older.secret)
    ended = await revoke(house, publisher.live, older.api_key.id)
    assert ended.HasField("revoked_at")
    with pytest.raises(GatefoldError) as raised:
        await resolve(house, older.secret)
    assert (raised.value.kind, raised.value.reason) == (Kind.NOT_FOUND, "api_key_unknown")
    await resolve(house, newer.secret)
    assert await revoke(house, publisher.live, older.api_key.id) == ended
    assert [one.id for one in await listed(house, publisher.live)] == [newer.api_key.id, older.api_key.id]


@pytest.mark.case("auth-69")
async def test_a_key_with_one_wrong_character_fails_its_checksum(house: AuthHouse) -> None:
    publisher = await house.publisher()
    key = (await create(house, publisher.live)).secret
    for place in range(len(key)):
        other = "b" if key[place] != "b" else "c"
        assert not well_formed(key[:place] + other + key[place + 1 :])
    for wrong in ("", key[:-1], key + "0", key.upper(), " " + key, key + "\n"):
        assert not well_formed(wrong)


@pytest.mark.case("auth-68")
@pytest.mark.parametrize("scope", sorted(roles.SCOPES - roles.PUBLISHABLE_KEY_SCOPES))
async def test_a_publishable_key_holds_nothing_that_writes_or_shows_people(house: AuthHouse, scope: str) -> None:
    publisher = await house.publisher()
    with pytest.raises(GatefoldError) as raised:
        await create(house, publisher.live, PUBLISHABLE, (scope,))
    assert (raised.value.kind, raised.value.reason) == (Kind.INVALID, "scope_not_for_kind")


async def test_no_key_makes_keys_or_members_and_no_scope_is_invented(house: AuthHouse) -> None:
    publisher = await house.publisher()
    for scope in ("keys:write", "keys:read", "team:write", "team:read"):
        with pytest.raises(GatefoldError, match="scope_not_for_kind"):
            await create(house, publisher.live, SECRET, (scope,))
    with pytest.raises(GatefoldError, match="scope_unknown"):
        await create(house, publisher.live, SECRET, ("everything:write",))
    with pytest.raises(GatefoldError, match="kind_invalid"):
        await create(house, publisher.live, api_key_pb2.API_KEY_KIND_UNSPECIFIED)


@pytest.mark.case("auth-70")
async def test_nobody_raises_their_own_rights_by_a_key(house: AuthHouse) -> None:
    publisher = await house.publisher()
    with pytest.raises(GatefoldError) as raised:
        await create(house, publisher.live, SECRET, ("ledger:read",), role=roles.DEVELOPER)
    assert (raised.value.kind, raised.value.reason) == (Kind.FORBIDDEN, "scope_not_held")
    own = await create(house, publisher.live, role=roles.DEVELOPER)
    held = roles.scopes_of(roles.DEVELOPER) & roles.KEY_SCOPES
    assert set(own.api_key.scopes) == held
    everything = await create(house, publisher.live)
    assert set(everything.api_key.scopes) == roles.KEY_SCOPES
    with pytest.raises(GatefoldError, match="scope_missing"):
        await create(house, publisher.live, role=roles.SUPPORT)


@pytest.mark.case("auth-70")
async def test_another_accounts_key_is_not_found(house: AuthHouse) -> None:
    one, other = await house.publisher(), await house.publisher()
    key = await create(house, one.live)
    with pytest.raises(GatefoldError) as raised:
        await revoke(house, other.live, key.api_key.id)
    assert (raised.value.kind, raised.value.reason) == (Kind.NOT_FOUND, "api_key_not_found")
    assert await listed(house, other.live) == []
    await resolve(house, key.secret)


@pytest.mark.parametrize("wrong", [b"", b"short", b"\0" * 32, b"x" * 33])
async def test_a_hash_that_is_none_is_unknown(house: AuthHouse, wrong: bytes) -> None:
    with pytest.raises(GatefoldError, match="api_key_unknown"):
        await house.call(
            house.service("gateway"), house.api_keys.ResolveApiKey, api_key_pb2.ResolveApiKeyRequest(hash=wrong)
        )


async def test_only_the_gateway_resolves_keys(house: AuthHouse) -> None:
    request = api_key_pb2.ResolveApiKeyRequest(hash=b"\0" * 32)
    for who in (house.service("billing"), house.anonymous(), house.operator()):
        with pytest.raises(GatefoldError) as raised:
            await house.call(who, house.api_keys.ResolveApiKey, request)
        # The client reports a peer that is not trusted as a fault of the platform's.
        assert raised.value.reason in {"caller_kind_not_allowed", "service_distrusted"}
