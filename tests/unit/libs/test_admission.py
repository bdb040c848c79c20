"""Tests of libs/admission."""

from typing import Any
from uuid import UUID

import pytest
from gatefold.edge.v1 import policy_pb2

from libs.admission import admit
from libs.caller import Caller, CallerKind, service_caller
from libs.errors import GatefoldError, Kind
from libs.policies import Policy

ACCOUNT = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


def policy(**changes: Any) -> Policy:
    whole: dict[str, Any] = {
        "method": "/x/Y",
        "message": policy_pb2.Policy(),
        "tenant": True,
        "personal": False,
        "scope": "things:write",
        "callers": frozenset({CallerKind.SECRET_KEY, CallerKind.SUBSCRIBER, CallerKind.STAFF}),
        "peers": frozenset(),
        "safe": False,
        "repeatable": False,
        "keyed": True,
    }
    return Policy(**{**whole, **changes})


def key(**changes: Any) -> Caller:
    whole = {"kind": CallerKind.SECRET_KEY, "actor": "key_1", "account": ACCOUNT, "scopes": frozenset({"things:write"})}
    return Caller(**{**whole, **changes})  # type: ignore[arg-type]


FOR_SERVICES = policy(callers=frozenset({CallerKind.SERVICE}), peers=frozenset({"billing"}), scope="")


def refusal(policy: Policy, issuer: str, who: Caller, *, closed: bool = False) -> tuple[Kind, str]:
    with pytest.raises(GatefoldError) as caught:
        admit(policy, issuer, who, closed=closed)
    return caught.value.kind, caught.value.reason


def test_the_gateway_vouches_for_callers_from_outside() -> None:
    admit(policy(), "gateway", key(), closed=False)


@pytest.mark.parametrize("issuer", ["billing", "", "Gateway", "gateway "])
def test_no_other_service_vouches_for_callers_from_outside(issuer: str) -> None:
    assert refusal(policy(peers=frozenset({"billing"})), issuer, key()) == (Kind.FORBIDDEN, "peer_not_allowed")


def test_a_service_calls_for_itself_where_it_is_named() -> None:
    admit(FOR_SERVICES, "billing", service_caller("billing", ACCOUNT, request_id="r"), closed=False)


@pytest.mark.parametrize("issuer", ["notify", "gateway"])
def test_a_service_that_is_not_named_is_refused(issuer: str) -> None:
    who = service_caller(issuer, ACCOUNT, request_id="r")

    assert refusal(FOR_SERVICES, issuer, who) == (Kind.FORBIDDEN, "peer_not_allowed")


def test_a_service_does_not_pass_for_another() -> None:
    who = service_caller("auth", ACCOUNT, request_id="r")

    assert refusal(FOR_SERVICES, "billing", who) == (Kind.FORBIDDEN, "peer_not_allowed")


def test_a_service_is_refused_where_only_callers_from_outside_may_call() -> None:
    who = service_caller("billing", ACCOUNT, request_id="r")

    assert refusal(policy(), "billing", who) == (Kind.FORBIDDEN, "peer_not_allowed")


@pytest.mark.parametrize("kind", [CallerKind.PUBLISHABLE_KEY, CallerKind.ANONYMOUS, CallerKind.PLATFORM_OPERATOR])
def test_kinds_that_are_not_named_are_refused(kind: CallerKind) -> None:
    assert refusal(policy(), "gateway", key(kind=kind)) == (Kind.FORBIDDEN, "caller_kind_not_allowed")


def test_the_tenant_plane_needs_an_account() -> None:
    assert refusal(policy(), "gateway", key(account=None)) == (Kind.UNAUTHENTICATED, "account_required")
    who = service_caller("billing", None, request_id="r")
    assert refusal(FOR_SERVICES, "billing", who) == (Kind.UNAUTHENTICATED, "account_required")


@pytest.mark.parametrize(
    "kind", [CallerKind.SECRET_KEY, CallerKind.PUBLISHABLE_KEY, CallerKind.STAFF, CallerKind.SUBSCRIBER]
)
def test_the_platform_plane_refuses_a_publishers_credentials_even_when_named(kind: CallerKind) -> None:
    careless = policy(tenant=False, callers=frozenset(CallerKind))

    assert refusal(careless, "gateway", key(kind=kind)) == (Kind.FORBIDDEN, "plane_not_allowed")


PERSONAL = policy(tenant=False, personal=True, callers=frozenset(CallerKind), scope="")


@pytest.mark.parametrize("kind", [CallerKind.STAFF, CallerKind.SUBSCRIBER, CallerKind.PLATFORM_OPERATOR])
def test_the_personal_plane_takes_people_who_are_signed_in(kind: CallerKind) -> None:
    admit(PERSONAL, "gateway", Caller(kind, "x", session=ACCOUNT), closed=False)
    assert refusal(PERSONAL, "gateway", Caller(kind, "x")) == (Kind.FORBIDDEN, "plane_not_allowed")


@pytest.mark.parametrize("kind", [CallerKind.SECRET_KEY, CallerKind.PUBLISHABLE_KEY, CallerKind.ANONYMOUS])
def test_the_personal_plane_refuses_what_is_no_person_even_when_named(kind: CallerKind) -> None:
    who = Caller(kind, "x", account=ACCOUNT, session=ACCOUNT)
    assert refusal(PERSONAL, "gateway", who) == (Kind.FORBIDDEN, "plane_not_allowed")


@pytest.mark.case("auth-45")
def test_who_must_add_a_factor_first_reaches_the_personal_plane_alone() -> None:
    who = key(kind=CallerKind.STAFF, session=ACCOUNT, acr="enrol")
    admit(PERSONAL, "gateway", who, closed=False)
    assert refusal(policy(), "gateway", who) == (Kind.FORBIDDEN, "enrolment_required")


def test_staff_whom_the_accounts_provider_signed_in_reach_nothing_of_their_own_but_what_is_named() -> None:
    who = Caller(CallerKind.STAFF, "x", ACCOUNT, session=ACCOUNT, federated=True, scopes=frozenset({"things:write"}))
    assert refusal(PERSONAL, "gateway", who) == (Kind.FORBIDDEN, "federated_session")
    named = policy(
        tenant=False,
        personal=True,
        callers=frozenset(CallerKind),
        scope="",
        message=policy_pb2.Policy(federated=True),
    )
    admit(named, "gateway", who, closed=False)
    admit(policy(), "gateway", who, closed=False)
    # A reader's sign-in is the account's anyway.
    admit(PERSONAL, "gateway", Caller(CallerKind.SUBSCRIBER, "x", session=ACCOUNT, federated=True), closed=False)


@pytest.mark.parametrize("kind", [CallerKind.PLATFORM_OPERATOR, CallerKind.ANONYMOUS])
def test_the_platform_plane_takes_those_it_names(kind: CallerKind) -> None:
    who = Caller(kind, "x")

    admit(policy(tenant=False, callers=frozenset({kind})), "gateway", who, closed=False)


@pytest.mark.parametrize(
    "kind", [CallerKind.SECRET_KEY, CallerKind.PUBLISHABLE_KEY, CallerKind.STAFF, CallerKind.OAUTH_CLIENT]
)
@pytest.mark.parametrize("scopes", [set(), {"things:read"}, {"things"}, {"things:writes"}])
def test_keys_staff_and_clients_need_the_scope(kind: CallerKind, scopes: set[str]) -> None:
    anyone = policy(callers=frozenset(CallerKind))

    assert refusal(anyone, "gateway", key(kind=kind, scopes=frozenset(scopes))) == (Kind.FORBIDDEN, "scope_missing")
    admit(anyone, "gateway", key(kind=kind), closed=False)


def test_a_reader_needs_no_scope() -> None:
    admit(policy(), "gateway", key(kind=CallerKind.SUBSCRIBER, scopes=frozenset()), closed=False)


def test_a_closed_service_refuses_changes_and_answers_reads() -> None:
    assert refusal(policy(), "gateway", key(), closed=True) == (Kind.UNAVAILABLE, "closed_mode")
    assert refusal(policy(repeatable=True), "gateway", key(), closed=True) == (Kind.UNAVAILABLE, "closed_mode")
    admit(policy(safe=True), "gateway", key(), closed=True)
