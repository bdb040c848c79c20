"""What rules know of a request, and that it is found out only where a rule asks."""

import gc
import time
import weakref
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from gatefold.activity.v1 import activity_pb2
from multidict import CIMultiDict, CIMultiDictProxy

from libs import ids
from libs.activity import Pseudonyms, device_of
from libs.caller import Caller, CallerKind
from libs.clock import SystemClock
from libs.telemetry import Telemetry
from services.gateway.domain.expression import FIELDS
from services.gateway.http.clients import Clients
from services.gateway.http.crawlers import Crawlers
from services.gateway.http.exchange import Exchange
from services.gateway.http.facts import Headers, RequestFacts, Sources
from services.gateway.http.places import Places
from services.gateway.http.verdicts import Verdicts


def exchange(*headers: tuple[str, str], path: str = "/", body: bool = False) -> Exchange:
    sent: Any = SimpleNamespace(headers=CIMultiDictProxy(CIMultiDict(headers)), method="GET", body_exists=body)
    agent = dict(headers).get("User-Agent", "")
    known = Clients(Pseudonyms("p"), Places(None, None, Telemetry("tests")))
    client, program = known.of("192.0.2.1"), known.program(agent)
    return Exchange(sent, "r", 0.0, 0.0, path, "", "192.0.2.1", None, agent, client, program)


def facts(*headers: tuple[str, str], **rest: Any) -> RequestFacts:
    telemetry, clock = Telemetry("tests"), SystemClock()
    # No stream is read and no name looked up here.
    unused: Any = None
    verdicts = Verdicts(unused, None, clock=clock, monotonic=time.monotonic, telemetry=telemetry)
    crawlers = Crawlers(unused, monotonic=time.monotonic, telemetry=telemetry)
    sources = Sources(crawlers, verdicts, Clients(Pseudonyms("p"), Places(None, None, telemetry)))
    return RequestFacts(exchange(*headers, **rest), sources, lambda name, address: None)


def test_every_field_is_there_with_its_type() -> None:
    found = facts(path="/a")
    kinds = {"int": int, "bool": bool, "list of strings": tuple, "map of strings": Headers}
    for field in FIELDS:
        assert type(getattr(found, field.attribute)) is kinds.get(field.kind.value, str), field.name
    with pytest.raises(AttributeError):
        _ = found.request_pth


def test_a_request_is_freed_as_soon_as_nobody_has_it() -> None:
    """A cycle would keep thousands of them, until the collector comes."""
    found = facts(path="/a")
    made = exchange(path="/a")
    made.facts = RequestFacts(made, found.sources, lambda name, address: None)
    known = weakref.ref(made.facts)
    gc.disable()
    try:
        del made
        assert known() is None
    finally:
        gc.enable()


def test_what_costs_something_waits_until_it_is_asked_for() -> None:
    found = facts(path="/a")

    assert "request_size" not in vars(found)
    assert found.request_size == 0
    assert "request_size" in vars(found)


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


def test_verdicts_are_looked_for_on_all_that_a_caller_is_and_anew_once_that_is_known() -> None:
    clock, hidden = SystemClock(), Pseudonyms("p").of
    reader = Caller(CallerKind.SUBSCRIBER, "subj_1", account=UUID(int=7), session=UUID(int=9))
    session, account = ids.encode("ses", UUID(int=9)), ids.encode("acct", UUID(int=7))
    texts = {
        "address": "192.0.2.1",
        "network": "192.0.2.0/24",
        "user_agent": "Firefox/1",
        "actor": "subj_1",
        "session": session,
        "device": device_of("subj_1", "Firefox/1"),
    }
    for scope, text in texts.items():
        found = facts(("User-Agent", "Firefox/1"))
        of_caller = scope in ("actor", "session", "device")
        made = activity_pb2.Verdict(
            id="verdict_1",
            scope=scope,
            entity_hash=hidden(scope, text),
            action=activity_pb2.Verdict.ACTION_THROTTLE,
            revision=1,
            account_id=account if of_caller else "",
        )
        made.expires_at.FromSeconds(int(clock.wall().timestamp()) + 60)
        found.sources.verdicts.apply([made])
        assert found.verdict_action == ("" if of_caller else "throttle"), scope
        found.know(reader)
        assert found.verdict_action == "throttle", scope
        assert found.caller_account == account
        found.know(Caller(CallerKind.ANONYMOUS, "anonymous"))
        assert found.verdict_action == ("" if of_caller else "throttle"), scope
