"""What may be served: complete policies, routes that lead to one place, fields that HTTP can carry."""

from pathlib import Path

import pytest

from services.gateway.http.contracts import ContractError, Contracts
from tests.support.messages import ROOT, compiled

GOOD = """
plane: PLANE_TENANT callers: [CALLER_KIND_SECRET_KEY] rate: RATE_CLASS_READ idempotency: IDEMPOTENCY_SAFE
"""


def contract(http: str = 'get: "/v1/things/{id}"', policy: str = GOOD, returns: str = "Thing", more: str = "") -> str:
    return f"""
        syntax = "proto3"; package gatefold.billing.v1;
        import "gatefold/edge/v1/policy.proto"; import "google/api/annotations.proto";
        import "google/api/field_behavior.proto"; import "google/api/httpbody.proto";
        service ThingService {{
          rpc GetThing(GetThingRequest) returns ({returns}) {{
            option (google.api.http) = {{ {http} }};
            {f"option (gatefold.edge.v1.policy) = {{ {policy} }};" if policy else ""}
          }}
          {more}
        }}
        message GetThingRequest {{
          string id = 1 [(google.api.field_behavior) = REQUIRED]; string other = 2; Thing thing = 3;
          repeated Thing things = 4; google.api.HttpBody raw = 5;
          repeated string list = 6 [(gatefold.edge.v1.rule) = {{ header: "X-List" }}];
        }}
        message Thing {{ string name = 1; }}
        message Plain {{ string id = 1 [(google.api.field_behavior) = REQUIRED]; }}
    """


def load(source: str, tmp_path: Path) -> Contracts:
    path = tmp_path / "descriptors.binpb"
    path.write_bytes(compiled(source))
    return Contracts.load(path)


def problems(source: str, tmp_path: Path) -> str:
    with pytest.raises(ContractError) as caught:
        load(source, tmp_path)
    return str(caught.value)


def plain(**parts: str) -> str:
    return contract(**parts).replace("GetThing(GetThingRequest)", "GetThing(Plain)")


def test_our_own_contracts_can_be_served() -> None:
    contracts = Contracts.load(ROOT / "gen" / "descriptors.binpb")
    assert len(contracts.endpoints) > 35
    peers = {"auth", "subscriber", "billing", "notify", "abuse", "gateway"}
    assert all(endpoint.peer in peers for endpoint in contracts.endpoints)


def test_rpcs_without_a_route_are_no_endpoints() -> None:
    contracts = Contracts.load(ROOT / "gen" / "descriptors.binpb")
    names = {endpoint.method.name for endpoint in contracts.endpoints}
    assert not names & {"ResolveApiKey", "ResolveOrigin", "DescribeAccount", "EnsureSubject", "GetContact", "Advance"}


def test_a_complete_contract_is_read(tmp_path: Path) -> None:
    (endpoint,) = load(plain(), tmp_path).endpoints
    assert (endpoint.verb, endpoint.template, endpoint.variables) == ("GET", "/v1/things/{id}", ("id",))
    assert endpoint.rpc == "/gatefold.billing.v1.ThingService/GetThing"


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", "has no policy"),
        (GOOD.replace("plane: PLANE_TENANT", ""), "must state plane"),
        (GOOD.replace("rate: RATE_CLASS_READ", ""), "must state plane"),
        (GOOD.replace("idempotency: IDEMPOTENCY_SAFE", ""), "must state plane"),
        (GOOD.replace("CALLER_KIND_SECRET_KEY", "CALLER_KIND_UNSPECIFIED"), "unspecified caller"),
        (GOOD.replace("callers: [CALLER_KIND_SECRET_KEY]", 'peers: ["auth"]'), "nobody outside"),
        (GOOD.replace("[CALLER_KIND_SECRET_KEY]", '[CALLER_KIND_SERVICE] peers: ["auth"]'), "nobody outside"),
        (GOOD.replace("CALLER_KIND_SECRET_KEY", "CALLER_KIND_ANONYMOUS"), "callers that have no account"),
        (GOOD.replace("CALLER_KIND_SECRET_KEY", "CALLER_KIND_PLATFORM_OPERATOR"), "callers that have no account"),
        (GOOD.replace("PLANE_TENANT", "PLANE_PLATFORM"), "platform plane for callers of a tenant"),
        (GOOD.replace("IDEMPOTENCY_SAFE", "IDEMPOTENCY_NATURAL"), "SAFE exactly when"),
        (GOOD + "assurance: { acr: 'aal9' }", "unknown assurance"),
        (GOOD + "approval: { people: 2 }", "approval by several people"),
        (GOOD + "success_status: 404", "success status"),
        (GOOD + "cost: -1", "negative cost"),
    ],
)
def test_an_incomplete_or_contradictory_policy_is_refused(policy: str, expected: str, tmp_path: Path) -> None:
    assert expected in problems(plain(policy=policy), tmp_path)


@pytest.mark.parametrize(
    ("http", "expected"),
    [
        ('get: "/v1/things/{nothing}"', "no scalar field for nothing"),
        ('get: "/v1/things/{id=**}"', "has a path that is not served"),
        ('get: "/v1/things/{id}:cancel"', "has a path that is not served"),
        ('get: "v1/things/{id}"', "has a path that is not served"),
        ('get: "/v1/things/{id}" body: "*"', "is a GET with a body"),
        ('get: "/v1/things/{id}" body: "nothing"', "has no field nothing"),
        ('get: "/v1/things/{id}" additional_bindings { get: "/v2/things/{id}" }', "additional bindings"),
        ('custom: { kind: "LINK" path: "/v1/things/{id}" }', "custom HTTP method"),
    ],
)
def test_a_route_that_cannot_be_served_is_refused(http: str, expected: str, tmp_path: Path) -> None:
    assert expected in problems(plain(http=http), tmp_path)


def test_fields_that_a_query_or_header_cannot_carry_are_refused(tmp_path: Path) -> None:
    told = problems(contract(), tmp_path)
    assert "thing cannot be written as a query parameter" in told
    assert "raw cannot be written as a query parameter" in told
    assert "list is filled from a header and must be a text" in told


def test_a_variable_of_the_path_must_be_required(tmp_path: Path) -> None:
    source = contract(http='get: "/v1/things/{other}"')
    assert "other stands in the path and must be REQUIRED" in problems(source, tmp_path)


def test_a_stream_is_refused(tmp_path: Path) -> None:
    assert "streams" in problems(plain(returns="stream Thing"), tmp_path)


def test_two_rpcs_with_one_route_are_refused(tmp_path: Path) -> None:
    more = f"""
      rpc FindThing(Plain) returns (Thing) {{
        option (google.api.http) = {{ get: "/v1/things/{{id}}" }};
        option (gatefold.edge.v1.policy) = {{ {GOOD} }};
      }}
    """
    assert "has the route of" in problems(plain(more=more), tmp_path)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    told = problems(plain(http='post: "/v1/things/{nothing}"', policy=GOOD + "cost: -1"), tmp_path)
    for problem in ("SAFE exactly when", "negative cost", "no scalar field"):
        assert problem in told
