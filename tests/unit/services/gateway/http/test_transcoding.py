"""Tests of services/gateway/http/transcoding: what is read once and given out again."""

from pathlib import Path
from typing import Any

import pytest

from libs.codecs import RequestCodecs, ResponseCodecs
from libs.errors import GatefoldError
from services.gateway.http.contracts import Contracts
from services.gateway.http.transcoding import JSON_TYPE, Transcoder
from tests.support.messages import compiled

SOURCE = """
    syntax = "proto3"; package gatefold.billing.v1;
    import "gatefold/edge/v1/policy.proto"; import "google/api/annotations.proto";
    import "google/api/field_behavior.proto";
    service ThingService {
      rpc Find(Asked) returns (Found) {
        option (google.api.http) = { get: "/things/{id}" };
        option (gatefold.edge.v1.policy) = { POLICY idempotency: IDEMPOTENCY_SAFE };
      }
      rpc Make(Asked) returns (Found) {
        option (google.api.http) = { post: "/things/{id}" body: "*" };
        option (gatefold.edge.v1.policy) = { POLICY idempotency: IDEMPOTENCY_NATURAL };
      }
    }
    message Asked { string id = 1 [(google.api.field_behavior) = REQUIRED]; string colour = 2; int32 age = 3; }
    message Found {}
""".replace(
    "POLICY",
    "plane: PLANE_PLATFORM callers: [CALLER_KIND_ANONYMOUS] rate: RATE_CLASS_READ",
)


@pytest.fixture
def transcoders(tmp_path: Path) -> dict[str, Transcoder]:
    """The endpoints of the source above, by the name of the RPC."""
    path = tmp_path / "descriptors.binpb"
    path.write_bytes(compiled(SOURCE))
    return {
        endpoint.method.name: Transcoder(endpoint, RequestCodecs(), ResponseCodecs())
        for endpoint in Contracts.load(path).endpoints
    }


def asked(transcoder: Transcoder, identifier: str, query: str = "", body: bytes = b"") -> tuple[str, str, int]:
    message: Any = transcoder.request((identifier,), query, {}, JSON_TYPE if body else "", body)
    return message.id, message.colour, message.age


def test_each_path_and_query_is_read_as_its_own(transcoders: dict[str, Transcoder]) -> None:
    find = transcoders["Find"]

    for _ in range(2):
        assert asked(find, "a", "colour=red") == ("a", "red", 0)
        assert asked(find, "b", "colour=red") == ("b", "red", 0)
        assert asked(find, "a", "colour=blue&age=3") == ("a", "blue", 3)
        assert asked(find, "a") == ("a", "", 0)


def test_each_body_is_read_as_its_own(transcoders: dict[str, Transcoder]) -> None:
    make = transcoders["Make"]

    assert asked(make, "a", body=b'{"age": 1}') == ("a", "", 1)
    assert asked(make, "a", body=b'{"age": 2}') == ("a", "", 2)
    assert asked(make, "a") == ("a", "", 0)


def test_what_is_refused_is_refused_each_time(transcoders: dict[str, Transcoder]) -> None:
    for query in ("age=x", "colour=red&colour=red", "weight=1", "%ff"):
        for _ in range(2):
            with pytest.raises(GatefoldError):
                asked(transcoders["Find"], "a", query)


def test_a_long_query_is_not_kept(transcoders: dict[str, Transcoder]) -> None:
    find = transcoders["Find"]
    query = "colour=" + "r" * 1_000

    first, second = (find.request(("a",), query, {}, "", b"") for _ in range(2))

    assert first == second
    assert first is not second
    assert find.request(("a",), "age=1", {}, "", b"") is find.request(("a",), "age=1", {}, "", b"")
