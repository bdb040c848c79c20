"""What rules know of a request, and that it is found out only where a rule asks."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from libs.activity import Pseudonyms
from libs.clock import SystemClock
from libs.telemetry import Telemetry
from services.gateway.domain.expression import FIELDS
from services.gateway.http.crawlers import Crawlers
from services.gateway.http.exchange import Exchange
from services.gateway.http.facts import Headers, RequestFacts, Sources
from services.gateway.http.firewall import network_of
from services.gateway.http.places import Places
from services.gateway.http.verdicts import Verdicts


def exchange(*headers: tuple[str, str], path: str = "/", body: bool = False) -> Exchange:
    sent: Any = SimpleNamespace(headers=CIMultiDictProxy(CIMultiDict(headers)), method="GET", body_exists=body)
    agent = dict(headers).get("User-Agent", "")
    return Exchange(sent, "r", 0.0, 0.0, path, "", "192.0.2.1", None, agent)


def facts(*headers: tuple[str, str], **rest: Any) -> RequestFacts:
    telemetry, clock = Telemetry("tests"), SystemClock()
    # No stream is read and no name looked up here.
    unused: Any = None
    verdicts = Verdicts(unused, None, Pseudonyms("p"), clock=clock, monotonic=time.monotonic, telemetry=telemetry)
    crawlers = Crawlers(unused, monotonic=time.monotonic, telemetry=telemetry)
    sources = Sources(Places(None, None, telemetry), crawlers, verdicts, network_of)
    return RequestFacts(exchange(*headers, **rest), sources, lambda name, address: None)


def test_every_field_is_there_with_its_type() -> None:
    found = facts(path="/a")
    kinds = {"int": int, "bool": bool, "list of strings": tuple, "map of strings": Headers}
    for field in FIELDS:
        assert type(getattr(found, field.attribute)) is kinds.get(field.kind.value, str), field.name
    with pytest.raises(AttributeError):
        _ = found.request_pth


def test_what_costs_something_waits_until_it_is_asked_for() -> None:
    found = facts(path="/a")

    assert "client_country" not in vars(found)
    assert found.client_country == ""
    assert "client_country" in vars(found)


@pytest.mark.parametrize(
    ("stated", "body", "size"),
    [("12", True, 12), ("", True, -1), ("", False, 0), ("-5", False, 0), ("9" * 30, True, -1), ("٣", True, -1)],
)
def test_a_size_is_what_was_stated(stated: str, body: bool, size: int) -> None:
    headers = [("Content-Length", stated)] if stated else []

    assert facts(*headers, body=body).request_size == size


def test_paths_are_read_as_the_routes_read_them() -> None:
    assert [facts(path=path).request_path for path in ("/a%2Fb", "/%2eenv", "/%252e", "/%ff")] == [
        "/a/b",
        "/.env",
        "/%2e",
        "/\ufffd",
    ]


def test_headers_are_known_by_lower_case_names_and_joined() -> None:
    headers = Headers(exchange(("X-A", "1"), ("x-a", "2"), ("Odd", "\udcff")).request)

    assert headers["x-a"] == "1, 2"
    assert headers.get("none", "nothing") == "nothing"
    assert headers["odd"] == "?"
    assert ("x-a" in headers, "x-b" in headers, len(headers), sorted(headers)) == (True, False, 2, ["odd", "x-a"])
