"""The matrix of roles and scopes against the contracts: every scope an RPC asks for is in it, and no other."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from gatefold.edge.v1 import policy_pb2

from libs import policies
from libs.caller import CallerKind
from services.auth.domain import roles

DESCRIPTORS = Path(__file__).resolve().parents[5] / "gen" / "descriptors.binpb"


@pytest.fixture(scope="module")
def contracts() -> Mapping[str, policies.Policy]:
    return policies.load(DESCRIPTORS)


def test_every_scope_of_the_contracts_is_in_the_matrix_and_no_other(contracts: Mapping[str, policies.Policy]) -> None:
    assert {policy.scope for policy in contracts.values() if policy.scope} == roles.SCOPES


def test_what_keys_may_hold_is_of_use_to_them(contracts: Mapping[str, policies.Policy]) -> None:
    for kind, held in (
        (CallerKind.SECRET_KEY, roles.KEY_SCOPES),
        (CallerKind.PUBLISHABLE_KEY, roles.PUBLISHABLE_KEY_SCOPES),
    ):
        asked = {policy.scope for policy in contracts.values() if policy.scope and kind in policy.callers}
        assert asked == held


def test_a_publishable_key_reaches_no_scope_that_writes() -> None:
    assert all(scope.endswith(":read") for scope in roles.PUBLISHABLE_KEY_SCOPES)


@pytest.mark.parametrize("role", [roles.OWNER, roles.ADMIN])
def test_owner_and_admin_hold_every_scope(role: str) -> None:
    assert roles.scopes_of(role) == roles.SCOPES


def test_reading_only_means_no_write() -> None:
    held = roles.scopes_of(roles.READ_ONLY)
    assert held
    assert all(scope.endswith(":read") for scope in held)


@pytest.mark.parametrize("role", sorted(set(roles.ROLES) - {roles.OWNER, roles.ADMIN}))
def test_no_other_role_changes_the_team_or_where_money_goes(role: str) -> None:
    assert not {"team:write", "payment_connections:write"} & roles.scopes_of(role)


@pytest.mark.parametrize("role", ["", "operator", "root", "OWNER"])
def test_what_is_no_role_of_a_team_holds_nothing_and_nobody_invites_into_it(role: str) -> None:
    assert roles.scopes_of(role) == frozenset()
    assert not roles.may_invite(roles.OWNER, role)


def test_owners_are_made_by_owners_alone() -> None:
    assert roles.may_invite(roles.OWNER, roles.OWNER)
    assert not any(roles.may_invite(inviter, roles.OWNER) for inviter in (*roles.ROLES[1:], None))


def test_platform_rpcs_ask_for_no_scope(contracts: Mapping[str, policies.Policy]) -> None:
    # An operator's token carries none.
    platform = [one for one in contracts.values() if one.message.plane == policy_pb2.PLANE_PLATFORM]
    assert platform
    assert {one.scope for one in platform} == {""}
