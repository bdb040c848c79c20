"""Every RPC says who may call it, how it is counted, and whether it may be repeated."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from gatefold.edge.v1 import policy_pb2
from gatefold.edge.v1.policy_pb2 import Policy
from google.api import annotations_pb2
from google.protobuf.descriptor import FieldDescriptor, FileDescriptor, MethodDescriptor

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = {
    policy_pb2.CALLER_KIND_SECRET_KEY,
    policy_pb2.CALLER_KIND_PUBLISHABLE_KEY,
    policy_pb2.CALLER_KIND_STAFF,
    policy_pb2.CALLER_KIND_SUBSCRIBER,
    policy_pb2.CALLER_KIND_PLATFORM_OPERATOR,
    policy_pb2.CALLER_KIND_OAUTH_CLIENT,
    policy_pb2.CALLER_KIND_SCIM,
    policy_pb2.CALLER_KIND_ANONYMOUS,
}
TENANT_KINDS = OUTSIDE - {policy_pb2.CALLER_KIND_PLATFORM_OPERATOR, policy_pb2.CALLER_KIND_ANONYMOUS}
PEOPLE = {
    policy_pb2.CALLER_KIND_STAFF,
    policy_pb2.CALLER_KIND_SUBSCRIBER,
    policy_pb2.CALLER_KIND_PLATFORM_OPERATOR,
}


def files() -> Iterator[FileDescriptor]:
    for path in sorted((ROOT / "protos").rglob("*.proto")):
        name = path.relative_to(ROOT / "protos").with_suffix("").as_posix().replace("/", ".")
        yield importlib.import_module(f"{name}_pb2").DESCRIPTOR


def methods() -> list[MethodDescriptor]:
    return [method for file in files() for service in file.services_by_name.values() for method in service.methods]


def policy(method: MethodDescriptor) -> Policy:
    found: Policy = method.GetOptions().Extensions[policy_pb2.policy]
    return found


def wrongs(name: str, rule: Policy, *, has_route: bool, verb: str) -> list[str]:
    """What is wrong with an RPC's policy, in words."""
    kinds = set(rule.callers)
    checks = {
        "has no plane": rule.plane == policy_pb2.PLANE_UNSPECIFIED,
        "names no callers": not kinds,
        "has no rate class": rule.rate == policy_pb2.RATE_CLASS_UNSPECIFIED,
        "does not say whether it may be repeated": rule.idempotency == policy_pb2.IDEMPOTENCY_UNSPECIFIED,
        "can be called from outside and has no route": bool(kinds & OUTSIDE) and not has_route,
        "has a route and nobody outside may call it": has_route and not kinds & OUTSIDE,
        "is for services and names none": policy_pb2.CALLER_KIND_SERVICE in kinds and not rule.peers,
        "names services and is not for services": bool(rule.peers) and policy_pb2.CALLER_KIND_SERVICE not in kinds,
        "is on the platform plane and lets tenants in": rule.plane == policy_pb2.PLANE_PLATFORM
        and bool(kinds & TENANT_KINDS),
        "is on the personal plane and lets others in than people": rule.plane == policy_pb2.PLANE_PERSONAL
        and bool(kinds - PEOPLE),
        "is a GET that is not safe": verb == "get" and rule.idempotency != policy_pb2.IDEMPOTENCY_SAFE,
        "is safe and not a GET": has_route and verb != "get" and rule.idempotency == policy_pb2.IDEMPOTENCY_SAFE,
        "lets staff or secret keys write without a scope": rule.idempotency != policy_pb2.IDEMPOTENCY_SAFE
        and bool(kinds & {policy_pb2.CALLER_KIND_SECRET_KEY, policy_pb2.CALLER_KIND_STAFF})
        and not rule.scope
        and rule.plane != policy_pb2.PLANE_PERSONAL
        and rule.rate != policy_pb2.RATE_CLASS_STRICT,
        "has a scope of another form": bool(rule.scope) and not re.fullmatch(r"[a-z_]+:(read|write)", rule.scope),
        "changes something and is not audited": has_route
        and rule.idempotency != policy_pb2.IDEMPOTENCY_SAFE
        and rule.rate != policy_pb2.RATE_CLASS_WEBHOOK
        and rule.audit != policy_pb2.AUDIT_CHANGE
        and not name.endswith("RefreshSession"),
    }
    return [f"{name} {text}" for text, wrong in checks.items() if wrong]


def test_every_rpc_has_a_complete_policy() -> None:
    found = []
    for method in methods():
        http = method.GetOptions().Extensions[annotations_pb2.http]
        verb = http.WhichOneof("pattern") or ""
        found += wrongs(method.full_name, policy(method), has_route=bool(verb), verb=verb)
    assert found == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"plane": policy_pb2.PLANE_UNSPECIFIED}, "has no plane"),
        ({"plane": policy_pb2.PLANE_PLATFORM}, "lets tenants in"),
        (
            {"plane": policy_pb2.PLANE_PERSONAL, "callers": [policy_pb2.CALLER_KIND_SECRET_KEY]},
            "lets others in than people",
        ),
        ({"rate": policy_pb2.RATE_CLASS_UNSPECIFIED}, "has no rate class"),
        ({"idempotency": policy_pb2.IDEMPOTENCY_UNSPECIFIED}, "whether it may be repeated"),
        ({"scope": ""}, "without a scope"),
        ({"audit": policy_pb2.AUDIT_NONE}, "is not audited"),
    ],
)
def test_a_planted_gap_is_found(change: dict[str, object], text: str) -> None:
    good = {
        "plane": policy_pb2.PLANE_TENANT,
        "scope": "prices:write",
        "callers": [policy_pb2.CALLER_KIND_STAFF],
        "rate": policy_pb2.RATE_CLASS_WRITE,
        "idempotency": policy_pb2.IDEMPOTENCY_OPTIONAL,
        "audit": policy_pb2.AUDIT_CHANGE,
    }
    assert wrongs("planted", Policy(**good), has_route=True, verb="post") == []  # type: ignore[arg-type]
    assert text in " ".join(wrongs("planted", Policy(**{**good, **change}), has_route=True, verb="post"))  # type: ignore[arg-type]


def test_whoever_may_call_anything_may_open_a_stream_that_carries_its_calls() -> None:
    (carry,) = [method for method in methods() if method.full_name == "gatefold.mux.v1.MuxService.Carry"]
    callers = {peer for method in methods() if method is not carry for peer in policy(method).peers}

    # The edge speaks for people, who are no peers.
    assert {*callers, "gateway"} <= set(policy(carry).peers)


def test_no_two_rpcs_share_a_route() -> None:
    routes: dict[tuple[str, str], str] = {}
    for method in methods():
        http = method.GetOptions().Extensions[annotations_pb2.http]
        verb = http.WhichOneof("pattern")
        if verb:
            key = (verb, re.sub(r"\{[^}]*\}", "{}", getattr(http, verb)))
            assert key not in routes, f"{method.full_name} and {routes[key]}"
            routes[key] = method.full_name
    assert routes


def test_every_text_that_comes_from_outside_is_bounded_or_patterned_by_a_rule() -> None:
    loose = []
    for method in methods():
        if not method.GetOptions().Extensions[annotations_pb2.http].WhichOneof("pattern"):
            continue
        for field in method.input_type.fields:
            rule = field.GetOptions().Extensions[policy_pb2.rule]
            if field.type == FieldDescriptor.TYPE_STRING and not (
                rule.max_len or rule.pattern or rule.id_prefix or getattr(rule, "in")
            ):
                loose.append(field.full_name)
    assert loose == []
