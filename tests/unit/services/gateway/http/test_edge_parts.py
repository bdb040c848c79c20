"""The small parts of the edge: caches, key set, addresses, assurance, keys, local limits."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from gatefold.auth.v1 import api_key_pb2
from gatefold.edge.v1 import policy_pb2
from hypothesis import given
from hypothesis import strategies as st

from libs import errors, ids
from libs.caller import Caller, CallerKind
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError
from libs.policies import Policy
from libs.telemetry import Telemetry
from services.auth.domain import api_key as auths_api_key
from services.gateway.config import GatewayConfig
from services.gateway.http.address import ClientAddress, network_of
from services.gateway.http.api_keys import CACHE_SECONDS, ApiKeys, checksum
from services.gateway.http.authorisation import Authorisation
from services.gateway.http.caches import Cache
from services.gateway.http.limits import LocalLimiter, Quotas
from services.gateway.http.limits.limit import Limit
from services.gateway.http.problems import Problems
from services.gateway.http.session_ends import SessionEnds
from services.gateway.http.tokens import CLIENTS_PATH, KEY_SET_SECONDS, REFETCH_SECONDS, KeySet, Tokens
from tests.support.gateway import ISSUER, Signer
from tests.support.waiting import until


class Monotonic:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


# -- cache ------------------------------------------------------------------------------------------------------------


class Source:
    def __init__(self) -> None:
        self.asked = 0
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> int:
        self.asked += 1
        await self.gate.wait()
        if self.failure:
            raise self.failure
        return self.asked


async def test_a_cached_value_ends_with_its_time() -> None:
    clock, source = Monotonic(), Source()
    cache: Cache[str, int] = Cache(seconds=0.9, most=10, monotonic=clock)
    assert [await cache.get("a", source) for _ in range(3)] == [1, 1, 1]
    clock.now = 0.89
    assert await cache.get("a", source) == 1
    clock.now = 0.9
    assert cache.peek("a") is None
    assert await cache.get("a", source) == 2


async def test_a_cache_asks_once_for_all_who_wait_and_counts_age_from_the_question() -> None:
    clock, source = Monotonic(), Source()
    cache: Cache[str, int] = Cache(seconds=1, most=10, monotonic=clock)
    source.gate.clear()
    waiting = [asyncio.ensure_future(cache.get("a", source)) for _ in range(10)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    clock.now = 0.9
    source.gate.set()
    assert await asyncio.gather(*waiting[1:]) == [1] * 9
    clock.now = 1.0
    assert await cache.get("a", source) == 2


async def test_a_cache_is_bounded_and_keeps_no_failure() -> None:
    clock, source = Monotonic(), Source()
    cache: Cache[int, int] = Cache(seconds=10, most=3, monotonic=clock)
    for number in range(10):
        await cache.get(number, source)
    assert len(cache) == 3
    before = await cache.get(7, source)
    await cache.get(100, source)
    assert cache.peek(7) == before, "what was used last stays longest"
    asked = source.asked
    source.failure = errors.unavailable("away", "Away.")
    for _ in range(2):
        with pytest.raises(GatefoldError):
            await cache.get(99, source)
    assert source.asked == asked + 2


# -- key set ----------------------------------------------------------------------------------------------------------


class Keys:
    def __init__(self) -> None:
        self.asked = 0
        self.documents = [document("one")]
        self.failure: GatefoldError | None = None

    async def __call__(self, request_id: str) -> list[dict[str, str]]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.failure:
            raise self.failure
        return self.documents


def document(name: str, **changes: str) -> dict[str, str]:
    # The generator of P-256 is a point as good as any.
    x = "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY"
    y = "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": name, "use": "sig", "alg": "ES256"} | changes


async def test_the_key_set_is_fetched_when_old_and_seldom_for_unknown_ids() -> None:
    clock, fetch = Monotonic(), Keys()
    keys = KeySet(fetch, monotonic=clock)
    assert await keys.find("one", "r") is not None
    for _ in range(10):
        assert await keys.find("two", "r") is None
    assert fetch.asked == 1
    clock.now += REFETCH_SECONDS
    fetch.documents = [document("one"), document("two")]
    found = await asyncio.gather(*(keys.find("two", "r") for _ in range(10)))
    assert None not in found
    assert fetch.asked == 2
    clock.now += KEY_SET_SECONDS + 1
    fetch.documents = [document("two")]
    assert await keys.find("one", "r") is None


async def test_known_keys_stay_good_while_auth_is_away() -> None:
    clock, fetch = Monotonic(), Keys()
    keys = KeySet(fetch, monotonic=clock)
    fetch.failure = errors.unavailable("away", "Away.")
    with pytest.raises(GatefoldError):
        await keys.loaded()
    with pytest.raises(GatefoldError):
        await keys.find("one", "r")
    fetch.failure = None
    await keys.loaded()
    fetch.failure = errors.unavailable("away", "Away.")
    clock.now += 10 * KEY_SET_SECONDS
    assert await keys.find("one", "r") is not None
    assert await keys.find("two", "r") is None


def tokens_of(fetch: Keys, monotonic: Monotonic) -> Tokens:
    return tokens_and_ends(fetch, monotonic)[1]


def tokens_and_ends(fetch: Keys, monotonic: Monotonic) -> tuple[SessionEnds, Tokens]:
    async def none_ended(cursor: str, request_id: str) -> tuple[list[UUID], str]:
        return [], cursor

    ends = SessionEnds(cast("Any", None), none_ended, monotonic=monotonic, telemetry=Telemetry("gateway"))
    keys = KeySet(fetch, monotonic=monotonic)
    return ends, Tokens(keys, ends, issuer=ISSUER, clock=FixedClock(datetime.now(UTC)))


async def test_remembered_tokens_are_bounded_in_number_and_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.http.tokens._MOST_TOKENS", 2)
    fetch, signer = Keys(), Signer("one")
    fetch.documents = [document("one", x=signer.jwk().x, y=signer.jwk().y)]
    tokens = tokens_of(fetch, Monotonic())
    for number in range(5):
        await tokens.caller(signer.token(jti=str(number)), "r")
    assert len(tokens) == 2
    with pytest.raises(GatefoldError, match="access_token_invalid"):
        await tokens.caller(signer.token(jti="x" * 4096), "r")


async def test_a_test_accounts_token_is_not_live() -> None:
    fetch, signer = Keys(), Signer("one")
    fetch.documents = [document("one", x=signer.jwk().x, y=signer.jwk().y)]
    tokens = tokens_of(fetch, Monotonic())
    assert [(await tokens.caller(signer.token(live=live), "r")).live for live in (True, False)] == [True, False]


async def test_a_remembered_token_ends_with_its_key_where_no_other_token_comes() -> None:
    clock, fetch, signer = Monotonic(), Keys(), Signer("one")
    fetch.documents = [document("one", x=signer.jwk().x, y=signer.jwk().y)]
    tokens = tokens_of(fetch, clock)
    token = signer.token()
    for _ in range(10):
        assert (await tokens.caller(token, "r")).kind is CallerKind.SUBSCRIBER
    assert fetch.asked == 1
    fetch.documents = []
    clock.now += KEY_SET_SECONDS + 1
    # Nobody with a good token waits for the key set.
    await tokens.caller(token, "r")

    async def refused() -> bool:
        try:
            await tokens.caller(token, "r")
        except GatefoldError as error:
            return error.reason == "access_token_invalid"
        return False

    await until(refused)


class Verified:
    """A token that was verified, and what it may end by."""

    def __init__(self, **claims: Any) -> None:
        self.clock, self.fetch, self.signer = Monotonic(), Keys(), Signer("one")
        self.fetch.documents = [document("one", x=self.signer.jwk().x, y=self.signer.jwk().y)]
        self.ends, self.tokens = tokens_and_ends(self.fetch, self.clock)
        self.token = self.signer.token(**claims)

    def known(self, at: datetime | None = None) -> bool:
        return self.tokens.known(self.token, (at or datetime.now(UTC)).timestamp()) is not None


OF_CLIENT: dict[str, Any] = {
    "aud": ISSUER + CLIENTS_PATH,
    "kind": None,
    "client_id": ids.encode("cli", UUID(int=9)),
    "sid": ids.encode("ses", UUID(int=1)),
    "grant": ids.encode("grant", UUID(int=2)),
}
"""Claims of a token of an OpenID client."""


async def test_a_token_is_known_once_it_was_verified_and_until_it_ends() -> None:
    end = datetime.now(UTC) + timedelta(seconds=500)
    world = Verified(exp=int(end.timestamp()))
    assert not world.known()
    caller = await world.tokens.caller(world.token, "r")
    assert world.tokens.known(world.token, 0.0) is caller
    assert world.tokens.known(world.token + "x", 0.0) is None
    assert world.known(end - timedelta(seconds=1))
    assert not world.known(end)


async def test_a_known_token_is_not_taken_once_its_session_or_grant_has_ended() -> None:
    for claims, ended in (
        ({"sid": ids.encode("ses", UUID(int=1))}, UUID(int=1)),
        (OF_CLIENT, UUID(int=1)),
        (OF_CLIENT, UUID(int=2)),
    ):
        world = Verified(**claims)
        await world.tokens.caller(world.token, "r")
        world.ends.add(UUID(int=3))
        assert world.known()
        world.ends.add(ended)
        assert not world.known()
        with pytest.raises(GatefoldError, match="session_ended"):
            await world.tokens.caller(world.token, "r")


async def test_a_known_token_is_looked_at_again_when_its_key_is_old_or_another() -> None:
    world = Verified()
    await world.tokens.caller(world.token, "r")
    world.clock.now += KEY_SET_SECONDS
    assert world.known()
    world.clock.now += 1
    assert not world.known()
    await world.tokens.caller(world.token, "r")  # makes the key set be fetched meanwhile
    await until(world.known)
    world.fetch.documents = [document("one")]
    world.clock.now += KEY_SET_SECONDS + 1
    await world.tokens.caller(world.token, "r")
    await until(lambda: world.fetch.asked == 3 and not world.known())


async def test_a_key_is_known_for_less_than_a_second_and_never_from_anywhere_else_than_it_may_be() -> None:
    clock, networks = Monotonic(), list[str]()
    key = auths_api_key.mint("secret", True, lambda size: bytes(size))

    async def resolve(fingerprint: bytes, request_id: str) -> api_key_pb2.ResolveApiKeyResponse:
        found = api_key_pb2.ApiKey(
            id="key_1", kind=api_key_pb2.API_KEY_KIND_SECRET, live=True, scopes=["a:read"], networks=networks
        )
        return api_key_pb2.ResolveApiKeyResponse(account_id=ids.encode("acct", UUID(int=1)), api_key=found)

    keys = ApiKeys(resolve, Secret("pepper"), monotonic=clock)
    assert keys.known(key) is None
    caller = await keys.caller(key, "203.0.113.1", "r")
    clock.now = CACHE_SECONDS - 0.001
    assert keys.known(key) is caller
    clock.now = CACHE_SECONDS
    assert keys.known(key) is None
    networks.append("203.0.113.0/24")
    await keys.caller(key, "203.0.113.1", "r")
    assert keys.known(key) is None


@pytest.mark.parametrize("odd", [{"kty": "oct"}, {"crv": "P-384"}, {"alg": "RS256"}, {"use": "enc"}, {"kid": ""}])
async def test_keys_of_another_kind_are_left_out(odd: dict[str, str]) -> None:
    fetch = Keys()
    fetch.documents = [document("one", **odd), document("good")]
    keys = KeySet(fetch, monotonic=Monotonic())
    assert await keys.find("good", "r") is not None
    assert await keys.find(odd.get("kid", "one"), "r") is None


# -- addresses --------------------------------------------------------------------------------------------------------

PROXIES = ClientAddress(("10.0.0.0/8", "fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        (("203.0.113.1", 5), [], "203.0.113.1"),
        (("203.0.113.1", 5), ["1.2.3.4"], "203.0.113.1"),
        (("10.0.0.1", 5), ["1.2.3.4"], "1.2.3.4"),
        (("10.0.0.1", 5), ["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
        (("10.0.0.1", 5), ["6.6.6.6", "1.2.3.4, 10.0.0.2"], "1.2.3.4"),
        (("10.0.0.1", 5), ["10.0.0.9"], "10.0.0.9"),
        (("10.0.0.1", 5), ["1.2.3.4, nonsense"], "10.0.0.1"),
        (("10.0.0.1", 5), ["1.2.3.4, "], "10.0.0.1"),
        (("10.0.0.1", 5), ["1.2.3.4:80"], "1.2.3.4"),
        (("10.0.0.1", 5), ["[2001:db8::1]:443"], "2001:db8::1"),
        (("10.0.0.1", 5), ["[2001:db8::1]"], "2001:db8::1"),
        (("10.0.0.1", 5), ["1.2.3.4:port"], "10.0.0.1"),
        (("10.0.0.1", 5), ["fe80::1%eth0"], "10.0.0.1"),
        (("10.0.0.1", 5), ["2001:db8::1"], "2001:db8::1"),
        (("fd00::1", 5), ["2001:db8::1"], "2001:db8::1"),
        (("::ffff:10.0.0.1", 5), ["1.2.3.4"], "1.2.3.4"),
        (("::ffff:203.0.113.1", 5), ["1.2.3.4"], "203.0.113.1"),
        (("10.0.0.1", 5), [", ".join(["6.6.6.6"] + ["10.0.0.2"] * 500)], "10.0.0.2"),
        (("", 0), ["1.2.3.4"], ""),
    ],
)
def test_only_trusted_proxies_are_believed(peer: tuple[str, int], forwarded: list[str], expected: str) -> None:
    assert PROXIES.of(peer, forwarded) == expected


def test_one_client_has_a_whole_v6_network() -> None:
    assert network_of("2001:db8:1:2:3::4") == network_of("2001:db8:1:2:ffff::1") == "2001:db8:1:2::/64"
    assert network_of("203.0.113.1") == "203.0.113.1"
    assert network_of("") == ""


# -- assurance --------------------------------------------------------------------------------------------------------

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def assurance(caller: Caller, acr: str, max_age_seconds: int) -> dict[str, str]:
    message = policy_pb2.Policy(assurance=policy_pb2.Assurance(acr=acr, max_age_seconds=max_age_seconds))
    callers = frozenset({CallerKind.PLATFORM_OPERATOR})
    policy = Policy("/x/Y", message, False, False, "", callers, frozenset(), False, False, False)
    try:
        endpoint = cast("Any", SimpleNamespace(policy=policy, assured=True))
        Authorisation(FixedClock(NOW), closed=False).authorise(caller, endpoint)
    except GatefoldError as error:
        answer = Problems("/problems/").response(error, "r")
        return {"reason": error.reason, "challenge": answer.headers["WWW-Authenticate"]}
    return {}


def operator(acr: str | None, age: timedelta | None) -> Caller:
    return Caller(
        kind=CallerKind.PLATFORM_OPERATOR, actor="per_x", acr=acr, auth_time=None if age is None else NOW - age
    )


@pytest.mark.parametrize(
    ("acr", "age", "good"),
    [
        ("aal2", timedelta(minutes=15), True),
        ("aal3", timedelta(0), True),
        ("aal1", timedelta(0), False),
        (None, timedelta(0), False),
        ("zzz", timedelta(0), False),
        ("aal2", timedelta(minutes=15, seconds=1), False),
        ("aal2", None, False),
    ],
)
def test_assurance_is_strong_and_fresh_or_challenged(acr: str | None, age: timedelta | None, good: bool) -> None:
    answer = assurance(operator(acr, age), "aal2", 900)
    assert (
        not answer
        if good
        else answer["challenge"]
        == (
            'Bearer realm="gatefold", error="insufficient_user_authentication", '
            'error_description="A stronger or fresher authentication is required.", acr_values="aal2", max_age="900"'
        )
    )


def test_assurance_may_ask_for_one_of_both_alone() -> None:
    assert not assurance(operator("aal1", timedelta(seconds=5)), "", 10)
    assert "acr_values" not in assurance(operator("aal1", timedelta(seconds=50)), "", 10)["challenge"]
    assert not assurance(operator("aal2", None), "aal2", 0)


def test_what_a_caller_may_do_is_known_by_all_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.http.authorisation._MOST_ADMITTED", 2)
    message = policy_pb2.Policy(assurance=policy_pb2.Assurance(max_age_seconds=900))
    staff = Caller(
        kind=CallerKind.STAFF, actor="per_x", account=UUID(int=1), scopes=frozenset({"a:read"}), auth_time=NOW
    )
    clock = FixedClock(NOW)
    authorisation = Authorisation(clock, closed=False)

    def refused(caller: Caller, method: str = "/x/Y", scope: str = "a:read") -> str:
        callers = frozenset({CallerKind.STAFF})
        policy = Policy(method, message, True, False, scope, callers, frozenset(), False, False, False)
        try:
            authorisation.authorise(caller, cast("Any", SimpleNamespace(policy=policy, assured=True)))
        except GatefoldError as error:
            return error.reason
        return ""

    for _ in range(2):
        assert not refused(staff)
        assert refused(replace(staff, scopes=frozenset({"b:read"}))) == "scope_missing"
        assert refused(replace(staff, acr="enrol")) == "enrolment_required"
        assert refused(replace(staff, kind=CallerKind.SUBSCRIBER)) == "caller_kind_not_allowed"
        assert refused(staff, "/x/Other", "b:read") == "scope_missing"
        assert [refused(staff, f"/x/{number}") for number in range(5)] == [""] * 5, "more than are kept"
    clock.advance(timedelta(minutes=16))
    assert refused(staff) == "authentication_insufficient", "what time takes away is looked at each time"


# -- keys and quotas --------------------------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32), st.sampled_from(["secret", "publishable"]), st.booleans())
def test_the_keys_that_auth_makes_are_well_formed_here(randomness: bytes, kind: str, live: bool) -> None:
    key = auths_api_key.mint(kind, live, lambda _: randomness)
    assert checksum(key[:-6]) == key[-6:]


def test_unknown_quotas_are_refused() -> None:
    with pytest.raises(ValueError, match=r"read\.nobody"):
        Quotas({"read.nobody": (1, 1)})
    with pytest.raises(ValueError, match=r"read\.server"):
        GatewayConfig.quotas(cast("Any", SimpleNamespace(rate_quotas='{"read.server": 5}')))


def test_readers_behind_one_publishable_key_do_not_share_a_limit() -> None:
    quotas = Quotas({})
    key = Caller(kind=CallerKind.PUBLISHABLE_KEY, actor="key_x")
    keys = {quotas.of("strict", key, address).limits[0].key for address in ("203.0.113.1", "203.0.113.2")}
    assert len(keys) == 2


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 3)), max_size=60), st.integers(1, 20))
def test_in_any_window_no_more_than_rate_and_burst_is_let_through(steps: list[tuple[int, int]], amount: int) -> None:
    clock = Monotonic()
    limiter = LocalLimiter(clock)
    limit = Limit("read-server", "k", amount, 10)
    admitted: list[tuple[float, int]] = []
    for step, cost in steps:
        clock.now += step / 1000
        if limiter.decide([limit], min(cost, amount)).admitted:
            admitted.append((clock.now, min(cost, amount)))
    for begin, _ in admitted:
        for end, _ in admitted:
            if end >= begin:
                total = sum(cost for at, cost in admitted if begin <= at <= end)
                assert total <= amount + (end - begin) * amount / 10 + 1e-6


@given(st.integers(1, 50), st.integers(1, 100))
def test_whoever_waits_as_long_as_told_is_let_through(amount: int, seconds: int) -> None:
    clock = Monotonic()
    limiter = LocalLimiter(clock)
    limit = Limit("read-server", "k", amount, seconds)
    while (decision := limiter.decide([limit], 1)).admitted:
        pass
    clock.now += decision.retry_after_seconds
    assert limiter.decide([limit], 1).admitted


def test_the_local_limiter_is_bounded() -> None:
    limiter = LocalLimiter(Monotonic())
    for number in range(50_010):
        limiter.decide([Limit("read-address", str(number), 5, 60)], 1)
    assert len(limiter) == 50_000


def test_a_fault_of_ours_shows_nothing_of_itself() -> None:
    answer = Problems("https://gatefold.dev/problems/").response(
        errors.internal("key_missing", "billing has none."), "r1"
    )
    assert answer.status == 500
    assert b"billing" not in cast("bytes", answer.body)
    assert b'"type":"https://gatefold.dev/problems/internal_error"' in cast("bytes", answer.body)
    assert b'"instance":"urn:gatefold:request:r1"' in cast("bytes", answer.body)
