"""Tests of libs/policies."""

from pathlib import Path

import pytest
from gatefold.clock.v1 import clock_pb2  # noqa: F401 — policies are read from imported contracts
from gatefold.edge.v1 import policy_pb2
from gatefold.events.v1 import event_pb2  # noqa: F401 — as above
from google.protobuf import descriptor_pb2

from libs import policies
from libs.caller import CallerKind
from libs.policies import PolicyError

DRAINED = "/gatefold.clock.v1.ClockService/Drained"


def set_with(policy: policy_pb2.Policy | None, tmp_path: Path) -> Path:
    files = descriptor_pb2.FileDescriptorSet()
    service = files.file.add(package="x.v1").service.add(name="S")
    method = service.method.add(name="M")
    if policy is not None:
        method.options.Extensions[policy_pb2.policy].CopyFrom(policy)
    path = tmp_path / "set.binpb"
    path.write_bytes(files.SerializeToString())
    return path


def policy(**fields: object) -> policy_pb2.Policy:
    whole = {
        "plane": policy_pb2.PLANE_TENANT,
        "callers": [policy_pb2.CALLER_KIND_STAFF],
        "rate": policy_pb2.RATE_CLASS_READ,
        "idempotency": policy_pb2.IDEMPOTENCY_SAFE,
    }
    return policy_pb2.Policy(**{**whole, **fields})  # type: ignore[arg-type]


def test_the_policy_of_an_imported_method_is_read_from_its_contract() -> None:
    found = policies.of(DRAINED)

    assert (found.method, found.tenant, found.scope, found.safe) == (DRAINED, True, "", True)
    assert found.callers == {CallerKind.SERVICE}
    assert found.peers == {"auth"}
    assert (found.repeatable, found.keyed) == (True, False)


def test_platform_methods_are_not_the_tenants() -> None:
    assert not policies.of("/gatefold.events.v1.EventService/ListEvents").tenant


def test_changes_that_are_harmless_to_repeat_are_repeatable_and_not_safe() -> None:
    advance = policies.of("/gatefold.clock.v1.ClockService/Advance")

    assert (advance.safe, advance.repeatable) == (False, True)


def test_the_descriptor_set_says_the_same() -> None:
    loaded = policies.load(Path(__file__).parents[3] / "gen" / "descriptors.binpb")

    assert loaded[DRAINED] == policies.of(DRAINED)


@pytest.mark.parametrize(
    ("kind", "repeatable", "keyed"),
    [("OPTIONAL", False, True), ("REQUIRED", False, True), ("NATURAL", True, False), ("SAFE", True, False)],
)
def test_what_may_be_repeated_follows_from_idempotency(
    tmp_path: Path, kind: str, repeatable: bool, keyed: bool
) -> None:
    value = policy_pb2.Idempotency.Value(f"IDEMPOTENCY_{kind}")

    (found,) = policies.load(set_with(policy(idempotency=value), tmp_path)).values()

    assert (found.repeatable, found.keyed, found.safe) == (repeatable, keyed, kind == "SAFE")


def test_no_callers_means_services_only(tmp_path: Path) -> None:
    (found,) = policies.load(set_with(policy(callers=[], peers=["auth"]), tmp_path)).values()

    assert found.callers == {CallerKind.SERVICE}


@pytest.mark.parametrize(
    "fields",
    [
        {"plane": 0},
        {"rate": 0},
        {"idempotency": 0},
        {"callers": [0]},
        {"peers": ["billing"]},  # peers, and no service may call
        {"callers": [policy_pb2.CALLER_KIND_SERVICE]},  # services, and none is named
        {"callers": []},
    ],
)
def test_a_policy_that_is_incomplete_or_contradicts_itself_is_refused(
    tmp_path: Path, fields: dict[str, object]
) -> None:
    with pytest.raises(PolicyError, match=r"/x\.v1\.S/M"):
        policies.load(set_with(policy(**fields), tmp_path))


def test_a_method_without_a_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="has no policy"):
        policies.load(set_with(None, tmp_path))


@pytest.mark.parametrize("method", ["/gatefold.clock.v1.ClockService/Nothing", "/nobody.Knows/It", "", "/"])
def test_a_method_of_no_imported_contract_is_refused(method: str) -> None:
    with pytest.raises(PolicyError):
        policies.of(method)


def test_kinds_of_callers_are_those_of_the_contract() -> None:
    contract = {name.removeprefix("CALLER_KIND_"): number for name, number in policy_pb2.CallerKind.items() if number}

    assert {kind.name: kind.value for kind in CallerKind} == contract
