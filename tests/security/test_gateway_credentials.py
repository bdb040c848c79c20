"""Attacks on the gateway's credentials: forged, foreign, expired, stolen, misplaced."""

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
import yarl
from cryptography.hazmat.primitives import serialization
from gatefold.auth.v1 import api_key_pb2

from libs import ids
from libs.caller import CallerKind
from services.gateway.http import api_keys
from tests.support.bending import bent
from tests.support.gateway import (
    ISSUER,
    OTHER_ACCOUNT,
    OTHER_SITE,
    PUBLISHABLE_KEY,
    READER,
    SECRET_KEY,
    SITE,
    RunningGateway,
    Signer,
    api_key,
)
from tests.support.waiting import until

WIDE = '{"strict.address":[100000,60]}'


def ago(**since: float) -> int:
    return int((datetime.now(UTC) - timedelta(**since)).timestamp())


def public_pem(signer: Signer) -> bytes:
    public = signer.private.public_key()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def b64(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def refused(gateway: RunningGateway, token: str, reason: str = "access_token_invalid") -> None:
    answer = await gateway.ask("GET", "/v1/me", credential=token)
    assert (answer.status, answer.reason) == (401, reason)
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="gatefold", error="invalid_token"')
    assert gateway.backend.calls == []


async def test_no_credential_is_a_401_that_asks_for_one(gateway: RunningGateway) -> None:
    answer = await gateway.ask("GET", "/v1/me")
    assert (answer.status, answer.reason) == (401, "credential_required")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="gatefold"'


@pytest.mark.case("auth-55")
@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://another.example"},
        {"iss": None},
        {"iss": f"{ISSUER}/"},
        {"aud": "another"},
        {"aud": "gatefold-other"},
        {"aud": {"gatefold": True}},
        {"aud": None},
        {"sub": None},
        {"sub": "per_00000000000000000000000000"},
        {"sub": "nonsense"},
        {"sub": 7},
        {"sub": ["subj_00000000000000000000000000"]},
        {"aud": ["another"]},
        {"exp": None},
        {"exp": "never"},
        {"exp": True},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"iat": float("nan")},
        {"iat": None},
        {"iat": ago(hours=-2)},
        {"nbf": ago(hours=-2)},
        {"account": None},
        {"account": "acct_nonsense"},
        {"account": 7},
        {"kind": None},
        {"kind": "SERVICE"},
        {"kind": "SECRET_KEY"},
        {"kind": "PLATFORM_OPERATOR"},
        {"live": "yes"},
        {"live": None},
        {"scope": ["access:read"]},
        {"role": {"owner": True}},
        {"acr": 2},
        {"sid": "per_00000000000000000000000000"},
        {"auth_time": "yesterday"},
        {"auth_time": 1e300},
    ],
)
async def test_a_token_with_odd_claims_is_refused(gateway: RunningGateway, changes: dict[str, Any]) -> None:
    await refused(gateway, gateway.backend.signer.token(**changes))


@pytest.mark.case("auth-55")
@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"7", b"null", b'"iss"', b"{", b'["iss", "aud"]', b"[" * 2_000, b"\xff"]
)
async def test_a_signed_token_without_claims_is_refused(gateway: RunningGateway, payload: bytes) -> None:
    signer = gateway.backend.signer
    headers = {"typ": "at+jwt", "kid": signer.kid}
    await refused(gateway, jwt.PyJWS().encode(payload, signer.private, "ES256", headers=headers))


async def test_a_token_for_several_audiences_is_taken_when_we_are_one(gateway: RunningGateway) -> None:
    token = gateway.backend.signer.token(aud=["another", "gatefold"])
    assert (await gateway.ask("GET", "/v1/me", credential=token)).status == 200


@pytest.mark.case("auth-55")
async def test_a_token_that_has_ended_is_refused_and_says_so(gateway: RunningGateway) -> None:
    await refused(gateway, gateway.backend.signer.token(exp=ago(seconds=1)), "access_token_expired")
    await refused(gateway, gateway.backend.signer.token(exp=ago(days=9), iat=ago(days=10)), "access_token_expired")


@pytest.mark.case("auth-54")
@pytest.mark.case("auth-53")
@pytest.mark.parametrize(
    "headers",
    [
        {"typ": "JWT"},
        {"typ": None},
        {"kid": "unknown"},
        {"kid": None},
        {"kid": 7},
        {"kid": "../../etc/passwd"},
        {"kid": "' OR '1'='1"},
        {"kid": "https://attacker.example/keys"},
        {"kid": "\0"},
        {"kid": "k" * 5_000},
        {"kid": ["key-1"]},
        {"jku": "https://attacker.example/keys"},
        {"jwk": {"kty": "EC"}},
        {"x5u": "https://attacker.example/cert"},
        {"x5c": ["MIIB"]},
        {"crit": ["of-the-future"], "of-the-future": True},
        {"crit": []},
        {"b64": False, "crit": ["b64"]},
        {"crit": ["exp"], "exp": 1},
    ],
)
async def test_a_token_with_another_header_is_refused(gateway: RunningGateway, headers: dict[str, Any]) -> None:
    signer = gateway.backend.signer
    given = {
        name: value for name, value in {"typ": "at+jwt", "kid": signer.kid, **headers}.items() if value is not None
    }
    claims = jwt.decode(signer.token(), options={"verify_signature": False})
    body = f"{b64({'alg': 'ES256', **given})}.{b64(claims)}"
    signature = jwt.get_algorithm_by_name("ES256").sign(body.encode(), signer.private)
    await refused(gateway, f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}")


async def test_a_token_of_another_signer_is_refused(gateway: RunningGateway) -> None:
    await refused(gateway, Signer(gateway.backend.signer.kid).token())


@pytest.mark.case("auth-53")
async def test_an_unsigned_token_is_refused(gateway: RunningGateway) -> None:
    claims = jwt.decode(gateway.backend.signer.token(), options={"verify_signature": False})
    for algorithm in ("none", "None", "NONE"):
        header = b64({"alg": algorithm, "typ": "at+jwt", "kid": gateway.backend.signer.kid})
        await refused(gateway, f"{header}.{b64(claims)}.")


@pytest.mark.case("auth-53")
async def test_the_public_key_as_an_hmac_secret_is_refused(gateway: RunningGateway) -> None:
    signer = gateway.backend.signer
    claims = jwt.decode(signer.token(), options={"verify_signature": False})
    body = f"{b64({'alg': 'HS256', 'typ': 'at+jwt', 'kid': signer.kid})}.{b64(claims)}"
    key = signer.jwk()
    jwk = {"kty": key.kty, "crv": key.crv, "x": key.x, "y": key.y, "kid": key.kid, "use": key.use, "alg": key.alg}
    for secret in (public_pem(signer), public_pem(signer).strip(), json.dumps(jwk).encode(), key.x.encode(), b""):
        signature = base64.urlsafe_b64encode(hmac.digest(secret, body.encode(), "sha256")).rstrip(b"=").decode()
        await refused(gateway, f"{body}.{signature}")


@pytest.mark.case("auth-53")
@pytest.mark.parametrize("algorithm", ["ES384", "ES512", "RS256", "PS256", "HS256", "EdDSA", "es256", "", None, 7])
async def test_a_token_that_names_another_algorithm_than_its_keys_is_refused(
    gateway: RunningGateway, algorithm: object
) -> None:
    signer = gateway.backend.signer
    claims = jwt.decode(signer.token(), options={"verify_signature": False})
    body = f"{b64({'alg': algorithm, 'typ': 'at+jwt', 'kid': signer.kid})}.{b64(claims)}"
    signature = jwt.get_algorithm_by_name("ES256").sign(body.encode(), signer.private)
    await refused(gateway, f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}")


@pytest.mark.case("auth-54")
async def test_odd_key_ids_make_nothing_be_asked_but_the_key_set_and_that_seldom(fresh_gateway: RunningGateway) -> None:
    signer = fresh_gateway.backend.signer
    assert (await fresh_gateway.ask("GET", "/v1/me", credential=signer.token())).status == 200
    fresh_gateway.backend.forget()
    for kid in ("../../../etc/passwd", "' OR '1'='1", "https://attacker.example/keys", "k" * 5_000, "k" * 2_000):
        for _ in range(3):
            await refused(fresh_gateway, signer.token(headers={"kid": kid}))
    # Beyond what a header may hold nothing is read at all.
    answer = await fresh_gateway.ask("GET", "/v1/me", credential=signer.token(headers={"kid": "k" * 10_000}))
    assert (answer.status, answer.reason) == (400, "request_malformed")
    assert fresh_gateway.backend.lookups.count("key_set") <= 1
    assert set(fresh_gateway.backend.lookups) <= {"key_set"}


async def test_a_token_that_was_changed_is_refused_also_after_the_true_one_was_taken(gateway: RunningGateway) -> None:
    true = gateway.backend.signer.token()
    assert (await gateway.ask("GET", "/v1/me", credential=true)).status == 200
    gateway.backend.calls.clear()
    header, claims, signature = true.split(".")
    decoded = json.loads(base64.urlsafe_b64decode(claims + "=="))
    await refused(gateway, f"{header}.{b64({**decoded, 'account': ids.encode('acct', OTHER_ACCOUNT)})}.{signature}")
    await refused(gateway, f"{header}.{claims}.{bent(signature)}")
    await refused(gateway, f"{header}.{claims}.")


BRACKETS = base64.urlsafe_b64encode(b'{"a":' + b"[" * 2998).decode()


@pytest.mark.parametrize(
    "token",
    ["x", "a.b", "a.b.c", "a.b.c.d", ".", "..", "eyJhbGciOiJub25lIn0.e30.", "x" * 5000, f"{BRACKETS}.e30.e30"],
)
async def test_what_is_no_token_is_refused(gateway: RunningGateway, token: str) -> None:
    await refused(gateway, token)


@pytest.mark.parametrize(
    "header", ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "bearer", "Token x", "", "Bearer é", "Digest x=y"]
)
async def test_another_authorization_header_is_a_401(gateway: RunningGateway, header: str) -> None:
    answer = await gateway.ask("GET", "/v1/me", headers={"Authorization": header})
    assert (answer.status, answer.reason) == (401, "credential_malformed")


async def test_two_authorization_headers_are_a_401(gateway: RunningGateway) -> None:
    token = gateway.backend.signer.token()
    request = f"GET /v1/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n"
    answer = await gateway.raw(f"{request}Authorization: Bearer {SECRET_KEY}\r\n\r\n".encode())
    assert b" 401 " in answer.splitlines()[0] or b" 400 " in answer.splitlines()[0]
    assert gateway.backend.calls == []


async def test_made_up_key_ids_do_not_make_the_key_set_be_fetched(fresh_gateway: RunningGateway) -> None:
    old, new = fresh_gateway.backend.signer, Signer("key-2")
    kept = old.token()
    assert (await fresh_gateway.ask("GET", "/v1/me", credential=kept)).status == 200
    fresh_gateway.backend.jwks = [new.jwk()]
    # The key set was fetched a moment ago: unknown ids do not make it be fetched at will.
    before = fresh_gateway.backend.lookups.count("key_set")
    for number in range(5):
        assert (await fresh_gateway.ask("GET", "/v1/me", credential=new.token(jti=str(number)))).status == 401
    assert fresh_gateway.backend.lookups.count("key_set") == before


async def test_keys_with_a_wrong_checksum_are_refused_without_a_look_up(gateway: RunningGateway) -> None:
    wrong = SECRET_KEY[:-1] + ("0" if SECRET_KEY[-1] != "0" else "1")
    for key in (wrong, SECRET_KEY[:-1], SECRET_KEY + "0", "gfsk_live_", "gfsk_prod_" + "k" * 49, SECRET_KEY.upper()):
        answer = await gateway.ask("GET", "/v1/offers", credential=key)
        assert answer.status == 401
    assert "key" not in gateway.backend.lookups


async def test_a_key_that_does_not_exist_is_refused(gateway: RunningGateway) -> None:
    answer = await gateway.ask("GET", "/v1/offers", credential=api_key(body="z" * 43))
    assert (answer.status, answer.reason) == (401, "api_key_invalid")


async def test_a_key_is_only_what_it_was_made_as(fresh_gateway: RunningGateway) -> None:
    # As if auth answered a publishable or test key's hash with another kind of key.
    for key, other in (
        (api_key("pk", body="a" * 43), api_key("sk", body="a" * 43)),
        (api_key("sk", "test"), api_key("sk")),
    ):
        fresh_gateway.backend.add_key(other)
        backend = fresh_gateway.backend
        lookups = list(backend.keys)
        backend.add_key(key)
        (added,) = [hashed for hashed in backend.keys if hashed not in lookups]
        backend.keys[added] = backend.keys[lookups[-1]]
        answer = await fresh_gateway.ask("GET", "/v1/offers", credential=key)
        assert (answer.status, answer.reason) == (401, "api_key_invalid")


async def test_an_ended_key_works_for_less_than_a_second(gateway: RunningGateway) -> None:
    assert api_keys.CACHE_SECONDS < 1
    for _ in range(20):
        assert (await gateway.ask("GET", "/v1/offers", credential=SECRET_KEY)).status == 200
    assert gateway.backend.lookups.count("key") <= 20


async def test_a_secret_key_from_a_browser_is_refused_and_counted(fresh_gateway: RunningGateway) -> None:
    for origin in (SITE, "https://attacker.example", "null"):
        answer = await fresh_gateway.ask("GET", "/v1/offers", credential=SECRET_KEY, headers={"Origin": origin})
        assert (answer.status, answer.reason) == (403, "secret_key_exposed")
        assert SECRET_KEY.encode() not in answer.body
    assert fresh_gateway.metric("gatefold_gateway_problems_total", reason="secret_key_exposed") == 3
    assert fresh_gateway.backend.lookups == []


@pytest.mark.case("auth-68")
async def test_a_key_works_from_its_networks_only(fresh_gateway: RunningGateway) -> None:
    here, elsewhere = api_key(body="n" * 43), api_key(body="e" * 43)
    fresh_gateway.backend.add_key(here, scopes=("catalogue:read",), networks=("2001:db8::/32", "127.0.0.0/8"))
    fresh_gateway.backend.add_key(elsewhere, scopes=("catalogue:read",), networks=("203.0.113.0/24",))
    assert (await fresh_gateway.ask("GET", "/v1/offers", credential=here)).status == 200
    spoofed = {"X-Forwarded-For": "203.0.113.7"}
    for headers in ({}, spoofed):
        answer = await fresh_gateway.ask("GET", "/v1/offers", credential=elsewhere, headers=headers)
        assert (answer.status, answer.reason) == (403, "network_not_allowed")


@pytest.mark.case("auth-68")
async def test_a_key_that_leaks_is_reported_with_its_place(fresh_gateway: RunningGateway) -> None:
    backend = fresh_gateway.backend
    (hashed,) = [
        known for known, found in backend.keys.items() if found.api_key.kind == api_key_pb2.API_KEY_KIND_SECRET
    ]
    await fresh_gateway.ask("GET", "/v1/offers", credential=SECRET_KEY, headers={"Origin": SITE})
    await fresh_gateway.ask("GET", f"/v1/offers?key={SECRET_KEY}")
    referer = f"https://news.example/?key={SECRET_KEY.replace('gfsk', '%67fsk')}"
    answer = await fresh_gateway.ask("GET", "/v1/offers", headers={"Referer": referer})
    assert (answer.status, answer.reason) == (403, "secret_key_exposed")
    await until(lambda: len(backend.leaks) == 3)
    assert sorted(backend.leaks) == sorted((hashed, place) for place in ("browser", "url", "referer"))


async def test_what_is_no_key_is_refused_and_not_reported(fresh_gateway: RunningGateway) -> None:
    for text in ("gfsk_live_nonsense", SECRET_KEY[:-1] + "x", "gfsk_"):
        answer = await fresh_gateway.ask("GET", f"/v1/offers?key={text}")
        assert (answer.status, answer.reason) == (403, "secret_key_exposed")
    await fresh_gateway.ask("GET", f"/v1/offers?key={SECRET_KEY}")
    await until(lambda: bool(fresh_gateway.backend.leaks))
    assert len(fresh_gateway.backend.leaks) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/v1/offers?key={key}",
        "/v1/offers?a=b&api_key={encoded}",
        "/v1/subscribers/{key}",
        "/v1/nothing?{key}",
        "/healthz?x={key}",
        "/.well-known/jwks.json?x={key}",
    ],
)
async def test_a_secret_key_in_a_url_is_refused_on_every_path(
    gateway: RunningGateway, path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    encoded = SECRET_KEY.replace("gfsk", "%67fs%6B")
    target = path.format(key=SECRET_KEY, encoded=encoded)
    async with gateway.client.get(yarl.URL(f"{gateway.url}{target}", encoded=True)) as response:
        body = await response.read()
        assert response.status == 403
    assert b"secret_key_exposed" in body
    assert SECRET_KEY[10:].encode() not in body
    assert SECRET_KEY[10:] not in capfd.readouterr().err


async def test_a_tenants_key_or_token_never_reaches_the_platform_plane(gateway: RunningGateway) -> None:
    signer = gateway.backend.signer
    everything = "accounts:read accounts:write"
    for credential in (SECRET_KEY, PUBLISHABLE_KEY, signer.staff(scope=everything, role="owner"), signer.token()):
        answer = await gateway.ask("GET", "/v1/accounts", credential=credential)
        assert answer.status == 403
    assert gateway.backend.calls == []
    assert (await gateway.ask("GET", "/v1/accounts", credential=signer.operator())).status == 200
    assert gateway.backend.last()[1].kind is CallerKind.PLATFORM_OPERATOR


async def test_the_operator_never_reaches_a_tenants_plane(gateway: RunningGateway) -> None:
    answer = await gateway.ask("GET", "/v1/offers", credential=gateway.backend.signer.operator())
    assert answer.status == 403


async def test_a_scope_that_is_not_held_is_a_403_that_names_it(gateway: RunningGateway) -> None:
    staff = gateway.backend.signer.staff(scope="catalogue:read")
    answer = await gateway.ask("POST", "/v1/products", credential=staff, json={"name": "N", "features": ["a"]})
    assert (answer.status, answer.reason) == (403, "scope_missing")
    assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
    assert gateway.backend.calls == []


async def test_a_kind_of_caller_that_is_not_named_is_a_403(gateway: RunningGateway) -> None:
    answer = await gateway.ask("POST", "/v1/products", credential=PUBLISHABLE_KEY, json={})
    assert (answer.status, answer.reason) == (403, "caller_kind_not_allowed")
    reader = gateway.backend.signer.token(scope="catalogue:write")
    assert (await gateway.ask("POST", "/v1/products", credential=reader, json={})).status == 403


async def test_rpcs_between_services_cannot_be_reached(gateway: RunningGateway) -> None:
    operator = gateway.backend.signer.operator()
    for path in (
        "/gatefold.auth.v1.ApiKeyService/ResolveApiKey",
        "/gatefold.subscriber.v1.SubscriberService/GetContact",
        "/gatefold.privacy.v1.SubjectData/Export",
        "/v1/contacts",
        "/grpc.health.v1.Health/Check",
    ):
        for verb in ("GET", "POST"):
            answer = await gateway.ask(verb, path, credential=operator)
            assert (answer.status, answer.reason) == (404, "route_unknown")


async def test_a_stale_token_does_not_keep_its_holder_from_refreshing_it(gateway: RunningGateway) -> None:
    ended = gateway.backend.signer.token(exp=ago(minutes=1))
    answer = await gateway.ask("POST", "/v1/sessions/refresh", credential=ended, json={"refresh_token": "r"})
    assert answer.status == 200
    assert gateway.backend.last()[1].kind is CallerKind.ANONYMOUS


async def test_callers_cannot_name_themselves(gateway: RunningGateway) -> None:
    forged = {
        "gatefold-caller": "forged",
        "Gatefold-Account": ids.encode("acct", OTHER_ACCOUNT),
        "X-Account-Id": ids.encode("acct", OTHER_ACCOUNT),
        "gatefold-request-id": "forged",
    }
    await gateway.ask("GET", "/v1/offers", credential=SECRET_KEY, headers=forged)
    caller = gateway.backend.last()[1]
    assert caller.account != OTHER_ACCOUNT
    assert caller.request_id != "forged"


# -- browsers ---------------------------------------------------------------------------------------------------------


async def test_a_preflight_is_answered_for_a_known_site_alone(gateway: RunningGateway) -> None:
    asked = {"Origin": SITE, "Access-Control-Request-Method": "POST"}
    answer = await gateway.ask("OPTIONS", "/v1/checkouts", headers=asked)
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == SITE
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert "Origin" in answer.headers["Vary"]
    assert "Access-Control-Allow-Credentials" not in answer.headers
    for origin in ("https://attacker.example", "null", "https://news.example.attacker.example", SITE + "/", "*"):
        refused = await gateway.ask("OPTIONS", "/v1/checkouts", headers={**asked, "Origin": origin})
        assert (refused.status, refused.reason) == (403, "origin_not_allowed")
        assert "Access-Control-Allow-Origin" not in refused.headers


async def test_a_publishable_key_works_on_its_own_accounts_sites_alone(gateway: RunningGateway) -> None:
    good = await gateway.ask("GET", "/v1/offers", credential=PUBLISHABLE_KEY, headers={"Origin": SITE})
    assert (good.status, good.headers["Access-Control-Allow-Origin"]) == (200, SITE)
    assert good.headers["Vary"] == "Origin"
    for origin in (OTHER_SITE, "https://attacker.example", "null"):
        answer = await gateway.ask("GET", "/v1/offers", credential=PUBLISHABLE_KEY, headers={"Origin": origin})
        assert (answer.status, answer.reason) == (403, "origin_not_allowed")
    assert len(gateway.backend.calls) == 1


async def test_a_readers_token_works_on_its_own_accounts_sites_alone(gateway: RunningGateway) -> None:
    token = gateway.backend.signer.token()
    assert (await gateway.ask("GET", "/v1/me", credential=token, headers={"Origin": SITE})).status == 200
    answer = await gateway.ask("GET", "/v1/me", credential=token, headers={"Origin": OTHER_SITE})
    assert (answer.status, answer.reason) == (403, "origin_not_allowed")


async def test_a_known_site_can_read_why_it_was_refused(gateway: RunningGateway) -> None:
    await gateway.ask("OPTIONS", "/v1/me", headers={"Origin": SITE, "Access-Control-Request-Method": "GET"})
    ended = gateway.backend.signer.token(exp=ago(minutes=1))
    answer = await gateway.ask("GET", "/v1/me", credential=ended, headers={"Origin": SITE})
    assert answer.status == 401
    assert answer.headers["Access-Control-Allow-Origin"] == SITE
    foreign = await gateway.ask("GET", "/v1/me", credential=ended, headers={"Origin": "https://attacker.example"})
    assert "Access-Control-Allow-Origin" not in foreign.headers


async def test_refused_requests_cost_no_look_up_of_their_origin(gateway: RunningGateway) -> None:
    for number in range(20):
        await gateway.ask("GET", "/v1/nothing", headers={"Origin": f"https://{number}.attacker.example"})
        await gateway.ask("GET", "/v1/me", credential="x", headers={"Origin": f"https://{number}.attacker.example"})
    assert gateway.backend.lookups == []


async def test_origins_are_remembered(fresh_gateway: RunningGateway) -> None:
    for _ in range(10):
        await fresh_gateway.ask("GET", "/v1/offers", credential=PUBLISHABLE_KEY, headers={"Origin": SITE})
    assert fresh_gateway.backend.lookups.count(f"origin {SITE}") == 1


async def test_a_subject_in_a_token_is_a_reader_and_never_staff(gateway: RunningGateway) -> None:
    await refused(gateway, gateway.backend.signer.token(kind="STAFF", sub=ids.encode("subj", READER)))
