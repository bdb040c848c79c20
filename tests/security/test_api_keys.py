"""Attacks on API keys: their form, what is stored, whose they are, what they may do, and how fast they end."""

import asyncio
import hmac
import re
from collections.abc import AsyncIterator
from datetime import UTC, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from gatefold.auth.v1 import account_pb2, api_key_pb2

from infra.local.valkey import ValkeyServer
from libs import idempotency, ids
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError, Kind
from services.auth.domain import roles
from services.auth.domain.api_key import well_formed
from services.auth.usecases.expiry import Expiry
from tests.conftest import ServiceDb
from tests.support.auth import AuthHouse, running
from tests.support.bending import bent

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


async def rotate(house: AuthHouse, account: UUID, key: str, seconds: int) -> api_key_pb2.CreateApiKeyResponse:
    request = api_key_pb2.RotateApiKeyRequest(id=key, overlap_seconds=seconds)
    answer = await house.call(house.staff(account), house.api_keys.RotateApiKey, request)
    assert isinstance(answer, api_key_pb2.CreateApiKeyResponse)
    return answer


async def report(house: AuthHouse, key: str, place: str) -> bool:
    pepper = house.environ["GATEFOLD_KEY_PEPPER"].encode()
    hashed = hmac.digest(pepper, key.encode(), "sha256")
    request = api_key_pb2.ReportLeakedApiKeyRequest(hash=hashed, place=place)
    answer = await house.call(house.service("gateway"), house.api_keys.ReportLeakedApiKey, request)
    assert isinstance(answer, api_key_pb2.ReportLeakedApiKeyResponse)
    return answer.revoked


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


@pytest.mark.case("auth-68")
async def test_a_key_ends_when_its_time_is_over(house: AuthHouse) -> None:
    publisher = await house.publisher()
    ends = house.clock.wall() + timedelta(hours=1)
    request = api_key_pb2.CreateApiKeyRequest(kind=SECRET, name="Server")
    request.expires_at.FromDatetime(ends)
    made = await house.call(house.staff(publisher.live), house.api_keys.CreateApiKey, request)
    assert isinstance(made, api_key_pb2.CreateApiKeyResponse)
    found = await resolve(house, made.secret)
    assert found.api_key.expires_at.ToDatetime(UTC) == ends
    advance(house, timedelta(hours=1))
    with pytest.raises(GatefoldError, match="api_key_unknown"):
        await resolve(house, made.secret)
    request.expires_at.FromDatetime(house.clock.wall())
    with pytest.raises(GatefoldError) as raised:
        await house.call(house.staff(publisher.live), house.api_keys.CreateApiKey, request)
    assert (raised.value.reason, raised.value.violations[0].field) == ("expiry_invalid", "expires_at")


@pytest.mark.case("auth-68")
async def test_networks_are_kept_in_one_spelling_and_wrong_ones_refused(house: AuthHouse) -> None:
    publisher = await house.publisher()
    networks = ["203.0.113.7", "2001:DB8::/32"]
    request = api_key_pb2.CreateApiKeyRequest(kind=SECRET, name="Server", networks=networks)
    made = await house.call(house.staff(publisher.live), house.api_keys.CreateApiKey, request)
    assert isinstance(made, api_key_pb2.CreateApiKeyResponse)
    assert list((await resolve(house, made.secret)).api_key.networks) == ["203.0.113.7/32", "2001:db8::/32"]
    for wrong in ("203.0.113.7/24", "everywhere", "203.0.113.0/33", "'; DROP TABLE api_key"):
        refused = api_key_pb2.CreateApiKeyRequest(kind=SECRET, name="Server", networks=[wrong])
        with pytest.raises(GatefoldError, match="network_invalid"):
            await house.call(house.staff(publisher.live), house.api_keys.CreateApiKey, refused)


@pytest.mark.case("auth-69")
async def test_a_replaced_key_works_beside_its_successor_until_the_overlap_is_over(house: AuthHouse) -> None:
    publisher = await house.publisher()
    old = await create(house, publisher.live, scopes=("catalogue:read",))
    new = await rotate(house, publisher.live, old.api_key.id, 3600)
    assert new.secret != old.secret
    assert list(new.api_key.scopes) == ["catalogue:read"]
    assert (await resolve(house, old.secret)).api_key.replaced_by == new.api_key.id
    await resolve(house, new.secret)
    with pytest.raises(GatefoldError, match="api_key_ended"):
        await rotate(house, publisher.live, old.api_key.id, 3600)
    advance(house, timedelta(hours=1))
    with pytest.raises(GatefoldError, match="api_key_unknown"):
        await resolve(house, old.secret)
    last = await rotate(house, publisher.live, new.api_key.id, 0)
    with pytest.raises(GatefoldError, match="api_key_unknown"):
        await resolve(house, new.secret)
    await resolve(house, last.secret)


async def test_a_rotation_gives_no_more_than_whoever_asks_holds(house: AuthHouse) -> None:
    one, other = await house.publisher(), await house.publisher()
    key = await create(house, one.live, scopes=("ledger:read",))
    request = api_key_pb2.RotateApiKeyRequest(id=key.api_key.id)
    with pytest.raises(GatefoldError, match="scope_not_held"):
        await house.call(house.staff(one.live, roles.DEVELOPER), house.api_keys.RotateApiKey, request)
    with pytest.raises(GatefoldError, match="api_key_not_found"):
        await house.call(house.staff(other.live), house.api_keys.RotateApiKey, request)
    assert not (await resolve(house, key.secret)).api_key.replaced_by


async def test_two_rotations_at_once_make_one_successor(house: AuthHouse) -> None:
    publisher = await house.publisher()
    key = await create(house, publisher.live)
    results = await asyncio.gather(
        *(rotate(house, publisher.live, key.api_key.id, 60) for _ in range(4)), return_exceptions=True
    )
    assert sum(isinstance(result, GatefoldError) for result in results) == 3
    assert len(await listed(house, publisher.live)) == 2


@pytest.mark.case("auth-67")
async def test_it_is_shown_when_a_key_was_last_used(house: AuthHouse) -> None:
    publisher = await house.publisher()
    key = await create(house, publisher.live)
    assert not (await listed(house, publisher.live))[0].HasField("last_used_at")
    first = house.clock.wall()
    await resolve(house, key.secret)
    advance(house, timedelta(seconds=30))
    await resolve(house, key.secret)
    assert (await listed(house, publisher.live))[0].last_used_at.ToDatetime(UTC) == first, "noted once a minute"
    advance(house, timedelta(seconds=40))
    await resolve(house, key.secret)
    assert (await listed(house, publisher.live))[0].last_used_at.ToDatetime(UTC) == house.clock.wall()


async def test_a_leaked_key_is_ended_and_told_once(house: AuthHouse) -> None:
    publisher = await house.publisher()
    key = await create(house, publisher.live)
    assert await report(house, key.secret, "url")
    for ask in (resolve(house, key.secret), report(house, key.secret, "browser")):
        with pytest.raises(GatefoldError, match="api_key_unknown"):
            await ask
    (shown,) = await listed(house, publisher.live)
    assert (shown.leaked_in, shown.HasField("revoked_at")) == ("url", True)
    assert (await house.events(publisher.live)).count("api_key.leaked") == 1


async def test_by_the_accounts_policy_a_leaked_key_goes_on_and_is_told(house: AuthHouse) -> None:
    publisher = await house.publisher()
    key = await create(house, publisher.test, live=False)
    request = account_pb2.UpdateSecurityPolicyRequest(revoke_leaked_keys=False)
    with pytest.raises(GatefoldError, match="policy_is_live"):
        await house.call(house.staff(publisher.test, live=False), house.accounts.UpdateSecurityPolicy, request)
    with pytest.raises(GatefoldError, match="scope_missing"):
        await house.call(house.staff(publisher.live, roles.DEVELOPER), house.accounts.UpdateSecurityPolicy, request)
    changed = await house.call(house.staff(publisher.live), house.accounts.UpdateSecurityPolicy, request)
    assert isinstance(changed, account_pb2.SecurityPolicy)
    assert (changed.require_staff_factor, changed.revoke_leaked_keys) == (False, False)
    assert not await report(house, key.secret, "referer")
    assert not await report(house, key.secret, "url")
    assert (await resolve(house, key.secret)).api_key.leaked_in == "referer"
    assert (await house.events(publisher.test)).count("api_key.leaked") == 1


async def test_an_unknown_key_or_place_is_not_reported(house: AuthHouse) -> None:
    publisher = await house.publisher()
    key = await create(house, publisher.live)
    with pytest.raises(GatefoldError, match="api_key_unknown"):
        await report(house, bent(key.secret, -1), "url")
    with pytest.raises(GatefoldError, match="place_invalid"):
        await report(house, key.secret, "elsewhere")


@pytest.mark.case("auth-45")
async def test_staff_of_an_account_that_asks_for_a_factor_can_only_add_one(house: AuthHouse) -> None:
    publisher = await house.publisher()
    request = account_pb2.UpdateSecurityPolicyRequest(require_staff_factor=True)
    await house.call(house.staff(publisher.live), house.accounts.UpdateSecurityPolicy, request)
    for account in (publisher.live, publisher.test):
        claims = await house.claims((await house.sign_in_staff(publisher.owner_email, account=account)).access_token)
        assert (claims["acr"], claims["scope"], claims.get("role")) == ("enrol", "", None)


def advance(house: AuthHouse, by: timedelta) -> None:
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(by)


async def make(house: AuthHouse, account: UUID, key: str | None, **wanted: str) -> api_key_pb2.CreateApiKeyResponse:
    request = api_key_pb2.CreateApiKeyRequest(kind=SECRET, name=wanted.get("name", "Server"))
    who = house.staff(account, wanted.get("role", roles.OWNER), key=key)
    answer = await house.call(who, house.api_keys.CreateApiKey, request)
    assert isinstance(answer, api_key_pb2.CreateApiKeyResponse)
    return answer


async def sealed(house: AuthHouse, account: UUID) -> list[bytes | None]:
    async with house.app.tenant(account, "read_keys") as conn:
        rows = await conn.fetch("SELECT secret_sealed FROM api_key ORDER BY id")
    return [row["secret_sealed"] for row in rows]


async def test_a_key_whose_answer_was_lost_is_answered_again_and_no_other_is_made(house: AuthHouse) -> None:
    publisher = await house.publisher()
    first = await make(house, publisher.live, "lost")
    assert await make(house, publisher.live, "lost") == first
    found = await asyncio.gather(*(make(house, publisher.live, "at-once") for _ in "abc"), return_exceptions=True)
    made = {one.secret for one in found if isinstance(one, api_key_pb2.CreateApiKeyResponse)}
    assert len(made) == 1
    assert {one.reason for one in found if isinstance(one, GatefoldError)} <= {"idempotency_in_flight"}
    with pytest.raises(GatefoldError, match="idempotency_key_reused"):
        await make(house, publisher.live, "lost", name="Another")
    kept = await sealed(house, publisher.live)
    assert len(kept) == 2
    assert all(one is not None and first.secret.encode() not in one for one in kept)


async def test_a_rotation_whose_answer_was_lost_is_answered_again(house: AuthHouse) -> None:
    publisher = await house.publisher()
    old = await make(house, publisher.live, None)
    assert await sealed(house, publisher.live) == [None], "what cannot be repeated is kept nowhere"
    request = api_key_pb2.RotateApiKeyRequest(id=old.api_key.id, overlap_seconds=60)
    first, again = [
        await house.call(house.staff(publisher.live, key="lost"), house.api_keys.RotateApiKey, request) for _ in "ab"
    ]
    assert first == again


async def test_a_repetition_shows_no_key_to_who_may_give_less_now_nor_one_that_was_ended(house: AuthHouse) -> None:
    publisher = await house.publisher()
    made = await make(house, publisher.live, "mine")
    with pytest.raises(GatefoldError, match="scope_not_held"):
        await make(house, publisher.live, "mine", role=roles.DEVELOPER)
    request = api_key_pb2.RevokeApiKeyRequest(id=made.api_key.id)
    await house.call(house.staff(publisher.live), house.api_keys.RevokeApiKey, request)
    with pytest.raises(GatefoldError, match="api_key_ended"):
        await make(house, publisher.live, "mine")
    assert await sealed(house, publisher.live) == [None]


async def test_a_new_key_is_forgotten_once_its_making_can_no_longer_be_repeated(house: AuthHouse) -> None:
    publisher = await house.publisher()
    made = await make(house, publisher.live, "yesterday")
    assert isinstance(house.clock, FixedClock)
    expiry = Expiry(house.database.jobs, house.clock)
    await expiry.clear()
    assert (await sealed(house, publisher.live))[0] is not None
    house.clock.advance(idempotency.KEPT + timedelta(hours=1))
    await expiry.clear()
    assert await sealed(house, publisher.live) == [None]
    assert (await make(house, publisher.live, "yesterday")).secret != made.secret
