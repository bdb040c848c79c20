"""Attacks on passwords over HTTP, through a real gateway: forged addresses, and what answers tell."""

import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from gatefold.auth.v1 import password_pb2

from infra.local.valkey import ValkeyServer
from libs.clock import FixedClock
from libs.config import Secret
from tests.conftest import ServiceDb
from tests.support.auth import COST, PASSWORD, AuthHouse, running
from tests.support.edge import Edge, running_edge
from tests.support.gateway import Answer

FREE, FREE_OF_AN_ADDRESS = 10, 50
WRONG = "wrong horse battery"
OF_EACH_REQUEST = {"Date", "X-Request-ID", "RateLimit"}
"""The last says what the client has left at the edge, whomever it asks about."""


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
    # Counters of its own: what is counted against this machine's address must delay nobody in other tests.
    settings = {"GATEFOLD_CHALLENGE_SECRET": os.urandom(32).hex()}
    async with running(database, keys_dsn.reveal(), url, key_file, folder, FixedClock(), settings) as found:
        yield found


@pytest.fixture(scope="module")
async def edge(house: AuthHouse) -> AsyncIterator[Edge]:
    """A gateway that clients reach themselves."""
    async with running_edge(house) as found:
        yield found


@pytest.fixture(scope="module")
async def behind_a_proxy(house: AuthHouse) -> AsyncIterator[Edge]:
    async with running_edge(house, trusted_proxies="127.0.0.0/8") as found:
        yield found


async def sign_in(edge: Edge, email: str, forwarded_for: str, password: str = WRONG) -> Answer:
    body = {"email": email, "password": password}
    return await edge.ask("POST", "/v1/staff/sessions", json=body, headers={"X-Forwarded-For": forwarded_for})


def told(answer: Answer) -> tuple[object, ...]:
    """Returns all that an answer says, but for what each request has of its own."""
    body = {name: value for name, value in answer.json.items() if name not in ("instance", "request_id")}
    headers = {name: value for name, value in answer.headers.items() if name not in OF_EACH_REQUEST}
    return answer.status, tuple(sorted(body.items())), tuple(sorted(headers.items()))


@pytest.mark.case("auth-27")
async def test_a_forged_forwarded_address_is_no_other_client_and_a_proxys_is(
    house: AuthHouse, edge: Edge, behind_a_proxy: Edge
) -> None:
    counted = {}
    for name, door in (("forged", edge), ("true", behind_a_proxy)):
        answers = [
            await sign_in(door, house.fresh("victim"), f"198.51.100.{number}")
            for number in range(FREE_OF_AN_ADDRESS + 10)
        ]
        counted[name] = Counter((one.status, one.reason) for one in answers)
    wrong, delayed = (401, "credentials_invalid"), (429, "sign_in_delayed")
    assert counted["forged"] == {wrong: FREE_OF_AN_ADDRESS, delayed: 10}
    assert counted["true"] == {wrong: FREE_OF_AN_ADDRESS + 10}


@pytest.mark.case("auth-8")
async def test_a_password_of_a_megabyte_is_refused_at_the_edge(house: AuthHouse, edge: Edge) -> None:
    units = house.units()
    for length, refusal in ((1_000_000, (413, "body_too_large")), (1025, (422, "request_invalid"))):
        answer = await sign_in(edge, house.fresh("endless"), "198.51.100.1", "x" * length)
        assert (answer.status, answer.reason) == refusal
    assert house.units() == units


@pytest.mark.case("auth-17")
@pytest.mark.case("auth-20")
async def test_status_body_headers_and_work_are_alike_for_known_and_unknown_before_and_during_a_lock(
    house: AuthHouse, behind_a_proxy: Edge
) -> None:
    publisher, second = await house.publisher(), await house.publisher()
    # Somebody whose password was replaced meanwhile is known as well.
    owner = await house.holder(await house.sign_in_staff(second.owner_email))
    change = password_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password="an entirely different phrase")
    await house.call(owner, house.passwords.ChangePassword, change)
    courses = []
    people = (publisher.owner_email, second.owner_email, house.fresh("nobody"))
    for place, email in enumerate(people):
        course = []
        for number in range(FREE + 3):
            units = house.units()
            # During the lock the right password is tried.
            password = PASSWORD if number > FREE else WRONG
            answer = await sign_in(behind_a_proxy, email, f"203.0.113.{place}", password)
            course.append((told(answer), house.units() - units))
        courses.append(course)
    for one, other, unknown in zip(*courses, strict=True):
        assert one == other == unknown
    statuses = [one[0][0] for one in courses[0]]
    assert statuses == [401] * FREE + [429] * 3
    assert [one[1] for one in courses[0]] == [2**COST] * FREE + [0] * 3
