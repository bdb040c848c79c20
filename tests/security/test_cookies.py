"""Sessions by cookie, and attacks on them: fixation, forgery from other sites, forged and stolen cookies."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from gatefold.auth.v1 import device_pb2, session_pb2

from infra.local.valkey import ValkeyServer
from libs import ids
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError
from tests.conftest import ServiceDb
from tests.support.auth import PASSWORD, AuthHouse, Publisher, running
from tests.support.edge import Edge, running_edge
from tests.support.gateway import Answer

SESSION, CSRF = "__Host-gatefold_session", "__Host-gatefold_csrf"
FOREIGN = "https://evil.example"


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


@pytest.fixture(scope="module")
async def edge(house: AuthHouse) -> AsyncIterator[Edge]:
    async with running_edge(house, hsts_seconds="31536000") as found:
        yield found


@pytest.fixture
async def publisher(house: AuthHouse) -> Publisher:
    return await house.publisher()


def cookies_of(answer: Answer) -> dict[str, str]:
    """Returns the cookies that an answer sets, by name."""
    found: dict[str, str] = {}
    for text in answer.headers.getall("Set-Cookie", []):  # type: ignore[attr-defined]
        found.update({name: morsel.value for name, morsel in SimpleCookie(text).items()})
    return found


async def sign_in(edge: Edge, publisher: Publisher, **headers: str) -> Answer:
    """Signs the owner in as a page of this origin does."""
    sent = {"Gatefold-Session": "cookie", "Origin": edge.url, **headers}
    body = {"email": publisher.owner_email, "password": PASSWORD}
    return await edge.ask("POST", "/v1/staff/sessions", json=body, headers=sent)


def own(edge: Edge, cookies: Mapping[str, str], **changes: str | None) -> dict[str, str]:
    """Returns the headers of a page's request; one that is changed to None is left out."""
    headers: dict[str, str | None] = {
        "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()),
        "Origin": edge.url,
        "Sec-Fetch-Site": "same-origin",
        "X-CSRF-Token": cookies[CSRF],
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    return {name: value for name, value in headers.items() if value is not None}


async def ask(edge: Edge, headers: Mapping[str, str]) -> Answer:
    return await edge.ask("GET", "/v1/session/devices", headers=headers)


async def change(edge: Edge, headers: Mapping[str, str], **body: Any) -> Answer:
    """Does something that changes state, and that whoever is signed in may do."""
    sent: dict[str, Any] = body or {"json": {}}
    return await edge.ask("POST", "/v1/session/devices/end_others", headers=headers, **sent)


@pytest.mark.case("auth-47")
async def test_the_cookie_is_host_only_secure_and_out_of_reach_of_scripts_and_no_token_is_shown(
    edge: Edge, publisher: Publisher
) -> None:
    answer = await sign_in(edge, publisher)
    assert answer.status == 200, answer.body
    session, csrf = answer.headers.getall("Set-Cookie")  # type: ignore[attr-defined]
    assert re.fullmatch(
        rf"{SESSION}=gfcs_[A-Za-z0-9_-]{{64}}; Max-Age=\d+; Path=/; Secure; HttpOnly; SameSite=Lax", session
    )
    assert re.fullmatch(rf"{CSRF}=[A-Za-z0-9_-]{{43}}; Max-Age=\d+; Path=/; Secure; SameSite=Lax", csrf)
    assert "Domain" not in session + csrf
    assert not answer.json.get("access_token")
    assert not answer.json.get("refresh_token")
    for mark in (b"gfrt_", b"eyJ", b"gfcs_"):
        assert mark not in answer.body
    assert answer.json["principal_id"] == ids.encode("per", publisher.owner)
    assert int(re.findall(r"Max-Age=(\d+)", session)[0]) == pytest.approx(86_400, abs=5)


@pytest.mark.case("auth-46")
async def test_the_cookie_is_another_after_each_sign_in_and_a_fixed_one_is_never_taken(
    edge: Edge, publisher: Publisher
) -> None:
    planted = "gfcs_" + "A" * 64
    first = cookies_of(await sign_in(edge, publisher, Cookie=f"{SESSION}={planted}"))
    assert first[SESSION] != planted
    assert (await ask(edge, own(edge, {**first, SESSION: planted}))).reason == "session_cookie_invalid"
    second = cookies_of(await sign_in(edge, publisher, Cookie=f"{SESSION}={first[SESSION]}"))
    assert second[SESSION] != first[SESSION]
    for cookies in (first, second):
        assert (await ask(edge, own(edge, cookies))).status == 200


@pytest.mark.case("auth-47")
async def test_without_asking_for_a_cookie_tokens_come_in_the_body_and_no_cookie(
    edge: Edge, publisher: Publisher
) -> None:
    body = {"email": publisher.owner_email, "password": PASSWORD}
    answer = await edge.ask("POST", "/v1/staff/sessions", json=body)
    assert answer.json["access_token"].startswith("eyJ")
    assert "Set-Cookie" not in answer.headers


async def use(house: AuthHouse, cookie: str) -> dict[str, object]:
    """Takes a cookie as a gateway does; returns the claims of the access token."""
    request = session_pb2.UseCookieRequest(cookie=cookie)
    answer = await house.call(house.service("gateway"), house.sessions.UseCookie, request)
    assert isinstance(answer, session_pb2.UseCookieResponse)
    return await house.claims(answer.access_token)


@pytest.mark.case("auth-48")
async def test_a_page_goes_on_while_it_is_used_and_ends_after_an_hour_without(
    house: AuthHouse, edge: Edge, publisher: Publisher
) -> None:
    cookie = cookies_of(await sign_in(edge, publisher))[SESSION]
    first = await use(house, cookie)
    assert isinstance(house.clock, FixedClock)
    for _ in range(3):
        house.clock.advance(timedelta(minutes=59))
        claims = await use(house, cookie)
        assert (claims["sid"], claims["auth_time"]) == (first["sid"], first["auth_time"])
    house.clock.advance(timedelta(minutes=60))
    with pytest.raises(GatefoldError, match="session_ended"):
        await use(house, cookie)


@pytest.mark.case("auth-48")
async def test_a_cookie_ends_with_its_session_after_a_day(house: AuthHouse, edge: Edge, publisher: Publisher) -> None:
    cookies = cookies_of(await sign_in(edge, publisher))
    assert isinstance(house.clock, FixedClock)
    for _ in range(47):
        house.clock.advance(timedelta(minutes=30))
        await use(house, cookies[SESSION])
    house.clock.advance(timedelta(minutes=30))
    with pytest.raises(GatefoldError, match="session_ended"):
        await use(house, cookies[SESSION])
    answer = await ask(edge, own(edge, cookies))
    assert (answer.status, answer.reason) == (401, "session_ended")
    assert cookies_of(answer) == {SESSION: "", CSRF: ""}


async def test_a_refresh_token_is_exchanged_for_a_cookie_and_a_reader_stays_for_thirty_days(
    house: AuthHouse, edge: Edge, publisher: Publisher
) -> None:
    email = house.fresh()
    await house.reader(publisher.live, email)
    tokens = await house.sign_in(publisher.live, email)
    headers = {"Gatefold-Session": "cookie", "Origin": edge.url}
    body = {"refresh_token": tokens.refresh_token}
    answer = await edge.ask("POST", "/v1/sessions/refresh", json=body, headers=headers)
    cookies = cookies_of(answer)
    assert b"gfrt_" not in answer.body
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(timedelta(days=29))
    assert (await ask(edge, own(edge, cookies))).status == 200
    assert (await change(edge, {**own(edge, cookies)})).reason == "authentication_insufficient"


@pytest.mark.case("auth-49")
async def test_signing_out_takes_the_cookie_back_and_a_copy_is_refused_at_once(
    house: AuthHouse, edge: Edge, publisher: Publisher
) -> None:
    cookies = cookies_of(await sign_in(edge, publisher))
    assert (await ask(edge, own(edge, cookies))).status == 200
    answer = await edge.ask("POST", "/v1/session/sign_out", json={}, headers=own(edge, cookies))
    assert answer.status == 200
    assert cookies_of(answer) == {SESSION: "", CSRF: ""}
    assert (await ask(edge, own(edge, cookies))).reason == "session_ended"


@pytest.mark.case("auth-49")
async def test_a_session_that_is_ended_elsewhere_takes_its_cookie_along(
    house: AuthHouse, edge: Edge, publisher: Publisher
) -> None:
    cookies = cookies_of(await sign_in(edge, publisher))
    assert (await ask(edge, own(edge, cookies))).status == 200
    request = device_pb2.EndMemberSessionsRequest(member_id=ids.encode("mem", publisher.member))
    await house.call(house.staff(publisher.live), house.devices.EndMemberSessions, request)
    async with asyncio.timeout(10):
        # A gateway believes a cookie for 0.9 s; its answers are all there is to see.
        while (answer := await ask(edge, own(edge, cookies))).status == 200:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert answer.reason == "session_ended"


@pytest.mark.case("auth-51")
@pytest.mark.parametrize(
    "changes",
    [
        {"X_CSRF_Token": None},
        {"X_CSRF_Token": ""},
        {"X_CSRF_Token": "A" * 43},
        {"Origin": FOREIGN},
        {"Origin": "null"},
        {"Origin": FOREIGN, "Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
        {"Origin": None, "Sec_Fetch_Site": None},
        {"Content_Type": "text/plain"},
        {"Content_Type": "text/plain;charset=UTF-8"},
        {"Content_Type": "application/x-www-form-urlencoded"},
        {"Content_Type": "multipart/form-data; boundary=x"},
        {"Content_Type": ""},
    ],
)
async def test_a_change_that_another_site_could_have_sent_is_refused(
    edge: Edge, publisher: Publisher, changes: dict[str, str | None]
) -> None:
    cookies = cookies_of(await sign_in(edge, publisher))
    other = cookies_of(await sign_in(edge, publisher))
    headers = own(edge, cookies, **changes)
    body = {"data": b"{}"} if "Content_Type" in changes else {"json": {}}
    answer = await change(edge, headers, **body)
    assert (answer.status, answer.reason) == (403, "csrf_refused")
    # Nothing was changed, and nobody was signed out by it.
    for kept in (cookies, other):
        assert (await ask(edge, own(edge, kept))).status == 200
    assert (await change(edge, own(edge, cookies))).status == 200


@pytest.mark.case("auth-51")
async def test_the_csrf_token_of_another_session_is_refused(edge: Edge, publisher: Publisher) -> None:
    one, other = [cookies_of(await sign_in(edge, publisher)) for _ in range(2)]
    # Somebody who could plant the second cookie and its header still lacks the token of this session.
    planted = {**one, CSRF: other[CSRF]}
    assert (await change(edge, own(edge, planted))).reason == "csrf_refused"


@pytest.mark.case("auth-51")
async def test_a_page_of_another_site_reads_nothing_with_the_cookie(edge: Edge, publisher: Publisher) -> None:
    cookies = cookies_of(await sign_in(edge, publisher))
    answer = await ask(edge, own(edge, cookies, Origin=FOREIGN))
    assert (answer.status, answer.reason) == (403, "csrf_refused")
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.case("auth-51")
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": FOREIGN},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Content-Type": "text/plain"},
    ],
)
async def test_nobody_is_signed_in_by_a_page_of_another_site(
    edge: Edge, publisher: Publisher, headers: dict[str, str]
) -> None:
    answer = await sign_in(edge, publisher, **headers)
    assert (answer.status, answer.reason) == (403, "csrf_refused")
    assert "Set-Cookie" not in answer.headers


@pytest.mark.case("auth-51")
async def test_a_sign_in_for_a_cookie_must_say_where_it_comes_from(edge: Edge, publisher: Publisher) -> None:
    body = {"email": publisher.owner_email, "password": PASSWORD}
    answer = await edge.ask("POST", "/v1/staff/sessions", json=body, headers={"Gatefold-Session": "cookie"})
    assert answer.reason == "csrf_refused"


@pytest.mark.case("auth-14")
@pytest.mark.case("auth-61")
async def test_what_needs_a_fresh_sign_in_says_so_and_goes_on_after_a_step_up(
    house: AuthHouse, edge: Edge, publisher: Publisher
) -> None:
    cookies = cookies_of(await sign_in(edge, publisher))
    new = "another horse battery"

    async def replace() -> Answer:
        body = {"current_password": PASSWORD, "new_password": new}
        return await edge.ask("POST", "/v1/session/change_password", json=body, headers=own(edge, cookies))

    async def refused() -> None:
        answer = await replace()
        assert (answer.status, answer.reason) == (401, "authentication_insufficient")
        challenge = answer.headers["WWW-Authenticate"]
        assert challenge.startswith("Bearer ")
        assert 'error="insufficient_user_authentication"' in challenge
        assert 'max_age="900"' in challenge

    assert isinstance(house.clock, FixedClock)
    house.clock.advance(timedelta(minutes=16))
    await refused()
    step_up = {"password": PASSWORD}
    answer = await edge.ask("POST", "/v1/session/step_up", json=step_up, headers=own(edge, cookies))
    assert answer.status == 200, answer.body
    house.clock.advance(timedelta(minutes=16))
    await refused()
    await edge.ask("POST", "/v1/session/step_up", json=step_up, headers=own(edge, cookies))
    answer = await replace()
    assert answer.status == 200, answer.body
    assert (await house.sign_in_staff(publisher.owner_email, new)).access_token


@pytest.mark.case("auth-56")
async def test_nothing_else_that_auth_gives_out_is_an_access_token(
    house: AuthHouse, edge: Edge, publisher: Publisher
) -> None:
    email = house.fresh()
    await house.register(publisher.live, email)
    mailed = await house.token(publisher.live, "verify_registration")
    tokens = await house.sign_in_staff(publisher.owner_email)
    cookie = cookies_of(await sign_in(edge, publisher))[SESSION]
    for token in (mailed, tokens.refresh_token, tokens.device_token, cookie):
        answer = await edge.devices(token)
        assert (answer.status, answer.reason) == (401, "access_token_invalid")


async def test_the_origin_must_be_this_one_to_the_letter(edge: Edge, publisher: Publisher) -> None:
    port = edge.url.rpartition(":")[2]
    for origin in (
        "http://127.0.0.1",
        f"http://127.0.0.1.evil.example:{port}",
        f"http://evil.example@127.0.0.1:{port}x",
        f"ftp://127.0.0.1:{port}",
        "http://127.0.0.1:99999999",
    ):
        assert (await sign_in(edge, publisher, Origin=origin)).reason == "csrf_refused", origin
    # Plain HTTP is for this machine alone; elsewhere whoever is on the wire could have written the page.
    assert (await sign_in(edge, publisher, Origin="http://gw.example", Host="gw.example")).reason == "csrf_refused"
    assert (await sign_in(edge, publisher, Origin="https://gw.example", Host="gw.example")).status == 200
    assert (await sign_in(edge, publisher, Origin="https://gw.example", Host="gw.example:443")).status == 200


@pytest.mark.parametrize(
    "value", ["", "gfcs_", "gfcs_" + "A" * 64, "gfcs_" + "A" * 63 + "=", "x" * 5_000, "gfrt_" + "A" * 70, "caf\u00e9"]
)
async def test_an_invented_cookie_is_refused_and_taken_back(edge: Edge, publisher: Publisher, value: str) -> None:
    answer = await ask(edge, {"Cookie": f"{SESSION}={value}"})
    assert (answer.status, answer.reason) == (401, "session_cookie_invalid")
    assert cookies_of(answer) == {SESSION: "", CSRF: ""}


async def test_two_cookies_of_the_name_are_refused(edge: Edge, publisher: Publisher) -> None:
    one, other = [cookies_of(await sign_in(edge, publisher))[SESSION] for _ in range(2)]
    answer = await ask(edge, {"Cookie": f"{SESSION}={one}; {SESSION}={other}"})
    assert answer.reason == "session_cookie_invalid"


async def test_a_cookie_opens_no_other_session_and_is_no_token(
    house: AuthHouse, edge: Edge, publisher: Publisher
) -> None:
    one, other = [cookies_of(await sign_in(edge, publisher))[SESSION] for _ in range(2)]
    mixed = other[: 5 + 21] + one[5 + 21 :]
    assert (await ask(edge, {"Cookie": f"{SESSION}={mixed}"})).reason == "session_cookie_invalid"
    assert (await edge.devices(one)).status == 401
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await house.refresh(one)
    tokens = await house.sign_in_staff(publisher.owner_email)
    for token in (tokens.refresh_token, tokens.access_token):
        assert (await ask(edge, {"Cookie": f"{SESSION}={token}"})).reason == "session_cookie_invalid"


async def test_only_a_gateway_opens_and_uses_cookies(house: AuthHouse, publisher: Publisher) -> None:
    tokens = await house.sign_in_staff(publisher.owner_email)
    opening = session_pb2.OpenCookieRequest(refresh_token=tokens.refresh_token)
    for who in (house.service("notify"), house.anonymous(), house.staff(publisher.live)):
        with pytest.raises(GatefoldError):
            await house.call(who, house.sessions.OpenCookie, opening)
    opened = await house.call(house.service("gateway"), house.sessions.OpenCookie, opening)
    assert isinstance(opened, session_pb2.OpenCookieResponse)
    assert opened.cookie
    await house.refresh(tokens.refresh_token)
    # A refresh token that is spent opens nothing.
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await house.call(house.service("gateway"), house.sessions.OpenCookie, opening)


async def test_the_database_and_the_log_hold_nothing_of_a_cookie(
    house: AuthHouse, edge: Edge, publisher: Publisher
) -> None:
    cookie = cookies_of(await sign_in(edge, publisher))[SESSION]
    await ask(edge, {"Cookie": f"{SESSION}={cookie}"})
    async with house.app.tenant(publisher.live, "dump", read_only=True) as conn:
        dumped = " ".join(row[0] for row in await conn.fetch("SELECT session::text FROM session"))
    assert cookie not in dumped
    assert cookie not in house.log.getvalue()


@pytest.mark.case("auth-52")
async def test_token_answers_are_never_stored_framed_or_sniffed(
    house: AuthHouse, edge: Edge, publisher: Publisher
) -> None:
    body = {"email": publisher.owner_email, "password": PASSWORD}
    bearer = await edge.ask("POST", "/v1/staff/sessions", json=body)
    refreshed = await edge.ask("POST", "/v1/sessions/refresh", json={"refresh_token": bearer.json["refresh_token"]})
    refused = await edge.ask("POST", "/v1/staff/sessions", json={**body, "password": "wrong password, long"})
    for answer in (bearer, refreshed, refused, await sign_in(edge, publisher)):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
