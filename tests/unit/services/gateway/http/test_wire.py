"""Protocols of others on the wire: OAuth's forms and errors, SCIM's media type and errors, redirects."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from gatefold.edge.v1 import policy_pb2
from google.protobuf.message_factory import GetMessageClass

from libs import errors
from libs.codecs import RequestCodecs, ResponseCodecs
from libs.errors import GatefoldError
from services.gateway.http.contracts import Contracts, Endpoint
from services.gateway.http.problems import Problems
from services.gateway.http.transcoding import FORM_TYPE, JSON_TYPE, Transcoder
from tests.support.messages import compiled

SOURCE = """
    syntax = "proto3"; package gatefold.billing.v1;
    import "gatefold/edge/v1/policy.proto"; import "gatefold/edge/v1/redirect.proto";
    import "google/api/annotations.proto"; import "google/api/field_behavior.proto"; import "google/api/httpbody.proto";
    service ThingService {
      rpc Grant(Asked) returns (Granted) {
        option (google.api.http) = { post: "/token" body: "*" };
        option (gatefold.edge.v1.policy) = { POLICY wire: WIRE_OAUTH };
      }
      rpc Leave(Asked) returns (gatefold.edge.v1.Redirect) {
        option (google.api.http) = { post: "/leave" body: "*" };
        option (gatefold.edge.v1.policy) = { POLICY wire: WIRE_OAUTH };
      }
      rpc Put(Raw) returns (google.api.HttpBody) {
        option (google.api.http) = { post: "/raw" body: "raw" };
        option (gatefold.edge.v1.policy) = { POLICY wire: WIRE_SCIM };
      }
    }
    message Asked { string code = 1 [(google.api.field_behavior) = REQUIRED]; bool offline = 2; int32 age = 3; }
    message Granted { optional string token = 1; optional string refresh = 2; int32 expires_in = 3; }
    message Raw { google.api.HttpBody raw = 1; }
""".replace(
    "POLICY",
    "plane: PLANE_PLATFORM callers: [CALLER_KIND_ANONYMOUS] rate: RATE_CLASS_STRICT idempotency: IDEMPOTENCY_NATURAL",
)


@pytest.fixture
def endpoints(tmp_path: Path) -> dict[str, Endpoint]:
    """The endpoints of the source above, by the name of the RPC."""
    path = tmp_path / "descriptors.binpb"
    path.write_bytes(compiled(SOURCE))
    return {endpoint.method.name: endpoint for endpoint in Contracts.load(path).endpoints}


def transcoder(endpoint: Endpoint) -> Transcoder:
    return Transcoder(endpoint, RequestCodecs(), ResponseCodecs())


def read(endpoint: Endpoint, body: bytes, content_type: str = FORM_TYPE) -> Any:
    return transcoder(endpoint).request((), "", {}, content_type, body)


def answer(error: GatefoldError, wire: int) -> tuple[int, str, dict[str, Any], dict[str, str]]:
    response = Problems("/problems/").response(error, "r", wire)
    assert isinstance(response.body, bytes)
    return response.status, response.headers["Content-Type"], orjson.loads(response.body), dict(response.headers)


def test_a_form_becomes_the_message_and_unknown_parameters_are_passed_over(endpoints: dict[str, Endpoint]) -> None:
    asked = read(endpoints["Grant"], b"code=a%2Bb+c&offline=true&age=7&other=x&other=y")
    assert (asked.code, asked.offline, asked.age) == ("a+b c", True, 7)


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (b"code=a&code=b", FORM_TYPE, "request_invalid"),
        (b"other=a", FORM_TYPE, "request_invalid"),
        (b"code=a&age=x", FORM_TYPE, "request_invalid"),
        (b"code=%ff", FORM_TYPE, "form_malformed"),
        ("code=ü".encode(), FORM_TYPE, "form_malformed"),
        (b"&".join([b"a=b"] * 200), FORM_TYPE, "form_malformed"),
        (b'{"code":"a"}', JSON_TYPE, "media_type_unsupported"),
        (b"code=a", "text/plain", "media_type_unsupported"),
    ],
)
def test_a_form_that_cannot_be_taken_is_refused(
    body: bytes, content_type: str, reason: str, endpoints: dict[str, Endpoint]
) -> None:
    with pytest.raises(GatefoldError) as caught:
        read(endpoints["Grant"], body, content_type)
    assert caught.value.reason == reason


def test_an_answer_to_an_oauth_client_has_no_empty_members(endpoints: dict[str, Endpoint]) -> None:
    granted = GetMessageClass(endpoints["Grant"].response)(token="t", expires_in=600)
    body, media_type = transcoder(endpoints["Grant"]).response(granted)
    assert (orjson.loads(body), media_type) == ({"token": "t", "expires_in": 600}, JSON_TYPE)


def test_a_redirect_has_the_status_that_makes_a_browser_get(endpoints: dict[str, Endpoint]) -> None:
    assert (endpoints["Leave"].redirects, endpoints["Leave"].success_status) == (True, 303)
    assert (endpoints["Grant"].redirects, endpoints["Grant"].success_status) == (False, 200)


@pytest.mark.parametrize("media_type", ["application/scim+json", "application/json; charset=utf-8"])
def test_scim_takes_its_own_media_type_and_json(media_type: str, endpoints: dict[str, Endpoint]) -> None:
    assert read(endpoints["Put"], b"{}", media_type).raw.data == b"{}"


@pytest.mark.parametrize("media_type", ["text/plain", FORM_TYPE, "", "application/scim+json; charset=latin1"])
def test_scim_takes_nothing_else(media_type: str, endpoints: dict[str, Endpoint]) -> None:
    with pytest.raises(GatefoldError) as caught:
        read(endpoints["Put"], b"{}", media_type)
    assert caught.value.reason == "media_type_unsupported"


def test_an_error_to_an_oauth_client_is_as_rfc_6749_says() -> None:
    spent = errors.malformed("code_spent", 'The code "x" is spent – é.', metadata={"error": "invalid_grant"})
    status, media_type, body, _ = answer(spent, policy_pb2.WIRE_OAUTH)
    assert (status, media_type) == (400, "application/json")
    assert body == {"error": "invalid_grant", "error_description": "The code 'x' is spent ' '."}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.invalid("x", "No.", field="code"), 400, "invalid_request"),
        (errors.unsupported_media("x", "No."), 400, "invalid_request"),
        (errors.unauthenticated("x", "No.", metadata={"error": "invalid_client"}), 401, "invalid_client"),
        (errors.forbidden("x", "No."), 403, "access_denied"),
        (errors.too_many("x", "No.", 7), 429, "temporarily_unavailable"),
        (errors.internal("x", "secret"), 500, "server_error"),
    ],
)
def test_each_kind_of_error_has_its_oauth_code(error: GatefoldError, status: int, code: str) -> None:
    found, _, body, headers = answer(error, policy_pb2.WIRE_OAUTH)
    assert (found, body["error"]) == (status, code)
    assert "secret" not in body["error_description"]
    assert ("WWW-Authenticate" in headers, headers.get("Retry-After")) == (
        status == 401,
        "7" if status == 429 else None,
    )


def test_an_error_to_a_directory_is_as_rfc_7644_says() -> None:
    taken = errors.conflict("user_name_taken", "There is such a user.", metadata={"scim_type": "uniqueness"})
    status, media_type, body, _ = answer(taken, policy_pb2.WIRE_SCIM)
    assert (status, media_type) == (409, "application/scim+json")
    assert body == {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
        "status": "409",
        "scimType": "uniqueness",
        "detail": "There is such a user.",
    }
