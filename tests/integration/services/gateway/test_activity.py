"""Activities of requests: one each, whatever became of it, with nothing in it that names anybody."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gatefold.activity.v1 import activity_pb2

from infra.local.valkey import ValkeyServer
from libs import errors, ids
from libs.activity import Pseudonyms, device_of, network_of
from libs.redis_client import RedisConfig, Store, connect
from tests.support.activity_streams import activities, entries
from tests.support.gateway import (
    ACCOUNT,
    PEPPER,
    PUBLISHABLE_KEY,
    READER,
    SECRET_KEY,
    RunningGateway,
    api_key,
    running_gateway,
)
from tests.support.stores import new_valkey
from tests.support.waiting import until

AGENT = "Mozilla/5.0 (Reader of Berlin)"
CLIENT = "203.0.113.77"
PROFILE = f"subj_{'01h455vb4pex5vsknk084sn02q'}"
SETTINGS = {
    "rate_quotas": '{"strict.address":[100000,60],"read.address":[100000,60],"bulk.server":[1,3600]}',
    "trusted_proxies": "127.0.0.0/8",
}


class Told:
    """What a gateway told of requests that a test made."""

    def __init__(self, gateway: RunningGateway, store: Store) -> None:
        self.gateway = gateway
        self.store = store
        self.hidden = Pseudonyms(PEPPER).of

    async def ask(self, verb: str, path: str, **rest: Any) -> activity_pb2.Activity:
        """Sends a request and returns the one activity that it became."""
        name = uuid.uuid4().hex
        headers = {"X-Request-Id": name, "X-Forwarded-For": CLIENT, "User-Agent": AGENT, **rest.pop("headers", {})}
        await self.gateway.ask(verb, path, headers=headers, **rest)
        return await self.one(name)

    async def one(self, request_id: str) -> activity_pb2.Activity:
        """Returns the one activity of a request."""
        found: list[activity_pb2.Activity] = []

        async def told() -> bool:
            found[:] = [one for one in await activities(self.store) if one.request_id == request_id]
            return bool(found)

        await until(told)
        assert len(found) == 1
        return found[0]


@pytest.fixture(scope="module")
async def shared(run_directory: Path, valkey_server: ValkeyServer) -> AsyncIterator[Told]:
    store = connect(RedisConfig(valkey_server.url()))
    async with running_gateway(run_directory, valkey_server.url(), **SETTINGS) as running:
        running.process._background.start()
        yield Told(running, store)
        await running.process._background.stop()
    await store.aclose()


@pytest.fixture
def told(shared: Told) -> Told:
    shared.gateway.backend.forget()
    return shared


async def test_a_request_is_told_with_opentelemetrys_names_and_hashes(told: Told) -> None:
    token = told.gateway.backend.signer.token()
    one = await told.ask("GET", "/v1/me", credential=token)
    assert (one.http_request_method, one.http_route, one.http_response_status_code) == ("GET", "/v1/me", 200)
    assert one.client_address_hash == told.hidden("address", CLIENT)
    assert one.client_network_hash == told.hidden("network", network_of(CLIENT))
    assert one.user_agent_hash == told.hidden("user_agent", AGENT)
    assert (one.caller_kind, one.account_id) == ("SUBSCRIBER", ids.encode("acct", ACCOUNT))
    assert one.actor_hash == told.hidden("actor", ids.encode("subj", READER))
    assert one.session_hash == told.hidden("session", ids.encode("ses", READER))
    assert one.device_hash == told.hidden("device", device_of(ids.encode("subj", READER), AGENT))
    assert one.duration_micros > 0
    assert one.http_response_body_size > 0
    assert one.time.seconds > 0
    assert (one.refused_by_edge, one.problem_reason, one.event_name, one.target_hash) == (False, "", "", b"")
    assert (one.geo_country_iso_code, one.client_asn) == ("", 0)


async def test_the_identifier_in_a_path_is_the_target_and_the_route_its_template(told: Told) -> None:
    body = {"name": "Nobody"}
    one = await told.ask("PATCH", f"/v1/subscribers/{PROFILE}", credential=SECRET_KEY, json=body)
    assert one.http_route == "/v1/subscribers/{id}"
    assert one.target_hash == told.hidden("target", PROFILE)
    assert one.http_request_body_size == len('{"name": "Nobody"}')


async def test_a_device_is_somebodys_who_is_signed_in_and_no_servers(told: Told) -> None:
    one = await told.ask("GET", "/v1/subscribers", credential=SECRET_KEY)
    assert (one.actor_hash != b"", one.device_hash) == (True, b"")
    none = await told.ask("GET", "/v1/me", credential=told.gateway.backend.signer.token(), headers={"User-Agent": ""})
    assert none.device_hash == b""


async def test_nobody_is_no_actor(told: Told) -> None:
    one = await told.ask("POST", f"/v1/webhooks/stripe/pc_{'01h455vb4pex5vsknk084sn02q'}", data=b"{}")
    assert (one.caller_kind, one.actor_hash, one.account_id) == ("ANONYMOUS", b"", "")


async def test_pages_preflights_and_unknown_paths_are_told_too(told: Told) -> None:
    page = await told.ask("GET", "/healthz")
    assert (page.http_route, page.http_response_status_code) == ("/healthz", 200)
    unknown = await told.ask("GET", f"/v1/nothing/{PROFILE}")
    assert (unknown.http_route, unknown.problem_reason) == ("", "route_unknown")
    odd = await told.ask("PROPFIND", "/v1/me")
    assert odd.http_request_method == "_OTHER"
    headers = {"Origin": "https://news.example", "Access-Control-Request-Method": "GET"}
    preflight = await told.ask("OPTIONS", "/v1/me", headers=headers)
    assert (preflight.http_request_method, preflight.http_response_status_code) == ("OPTIONS", 204)


async def test_the_edges_own_refusals_say_so_and_a_services_do_not(told: Told) -> None:
    forbidden = await told.ask("GET", "/v1/products", credential=told.gateway.backend.signer.token())
    assert (forbidden.http_response_status_code, forbidden.refused_by_edge) == (403, True)
    guessed = await told.ask("GET", "/v1/me", credential="nonsense")
    assert (guessed.http_response_status_code, guessed.refused_by_edge) == (401, False)
    assert guessed.problem_reason == "access_token_invalid"
    for error in (errors.forbidden("not_yours", "No."), errors.too_many("codes_sent", "Enough.", 1)):
        told.gateway.backend.failure = error
        said = await told.ask("GET", "/v1/products", credential=SECRET_KEY)
        assert (said.problem_reason, said.refused_by_edge) == (error.reason, False)
    told.gateway.backend.failure = errors.internal("broken", "Broken.")
    assert (await told.ask("GET", "/v1/products", credential=SECRET_KEY)).http_response_status_code == 500


async def test_a_rate_limited_request_is_refused_by_the_edge(told: Told) -> None:
    key = api_key(body=uuid.uuid4().hex + "k" * 11)
    told.gateway.backend.add_key(key, scopes=("subscribers:write",))
    csv = {"Content-Type": "text/csv"}
    seen = [await told.ask("POST", "/v1/imports", credential=key, data=b"x", headers=csv) for _ in range(2)]
    assert (seen[1].http_response_status_code, seen[1].problem_reason) == (429, "rate_limited")
    assert [one.refused_by_edge for one in seen] == [False, True]


async def test_what_cannot_be_read_is_told_and_lays_nothing_at_the_proxys_door(told: Told) -> None:
    known = {one.request_id for one in await activities(told.store)}
    await told.gateway.raw(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")
    new: list[activity_pb2.Activity] = []

    async def arrived() -> bool:
        new[:] = [one for one in await activities(told.store) if one.request_id not in known]
        return bool(new)

    await until(arrived)
    (one,) = new
    assert (one.problem_reason, one.http_request_method, one.http_route) == ("request_malformed", "_OTHER", "")
    assert (one.client_address_hash, one.refused_by_edge) == (b"", False)


async def test_every_request_is_one_activity_and_a_clients_are_in_order(told: Told) -> None:
    names = [f"{number:04d}-{uuid.uuid4().hex}" for number in range(200)]
    for name in names:
        await told.gateway.ask("GET", "/v1/offers", credential=PUBLISHABLE_KEY, headers={"X-Request-Id": name})

    async def all_told() -> bool:
        return {one.request_id for one in await activities(told.store)} >= set(names)

    await until(all_told)
    assert [one.request_id for one in await activities(told.store) if one.request_id in names] == names


async def test_nothing_in_the_stream_names_anybody(told: Told) -> None:
    signer = told.gateway.backend.signer
    mail = "jane.roe@mail.example"
    token = signer.token()
    await told.ask("GET", "/v1/me", credential=token)
    await told.ask("PATCH", f"/v1/subscribers/{PROFILE}", credential=SECRET_KEY, json={"name": "Jane Roe"})
    await told.ask("POST", "/v1/subscribers", credential=SECRET_KEY, json={"email": mail})
    await told.ask("GET", f"/v1/subscribers/{mail}?email={mail}", credential=SECRET_KEY)
    await told.ask("GET", f"/{mail}", headers={"User-Agent": f"{AGENT} {mail}", "Referer": f"https://x/{mail}"})
    await told.ask("GET", "/v1/me", headers={"Cookie": f"a={mail}"}, credential=f"x{mail}")
    raw = b"".join(await entries(told.store))
    assert ids.encode("acct", ACCOUNT).encode() in raw, "the account is what abuse is counted by"
    for secret in (
        CLIENT,
        "127.0.0.1",
        AGENT,
        "Mozilla",
        mail,
        "jane",
        "Jane",
        PROFILE,
        ids.encode("subj", READER),
        READER.hex,
        str(READER),
        SECRET_KEY,
        PUBLISHABLE_KEY,
        token,
        ids.encode("ses", READER),
    ):
        assert secret.encode() not in raw, secret
    assert READER.bytes not in raw


async def test_a_store_that_is_away_costs_activities_and_no_request(run_directory: Path) -> None:
    server = new_valkey(run_directory / "away")
    server.start()
    try:
        async with running_gateway(run_directory, server.url(), **SETTINGS) as gateway:
            server.stop()
            gateway.process._background.start()
            for _ in range(50):
                assert (await gateway.ask("GET", "/v1/offers", credential=SECRET_KEY)).status == 200
            await until(lambda: gateway.metric("gatefold_activities_lost_total") == 50)
            await gateway.process._background.stop()
    finally:
        server.stop()
