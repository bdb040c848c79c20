"""Tests of libs/caller; the attacks on it are in tests/security/test_caller.py."""

import asyncio
import base64
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs import caller
from libs.caller import Caller, CallerConfig, CallerKind, CallerSigner, CallerVerifier
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError, Kind

ACCOUNT, SUBJECT = UUID(int=1), UUID(int=2)
KEYS = {"gateway>billing": (b"k" * 32,)}
READER = Caller(CallerKind.SUBSCRIBER, "subj_1", account=ACCOUNT, subject=SUBJECT, request_id="req_1", live=False)

TEXT = st.none() | st.text(max_size=30)
IDS = st.none() | st.uuids()
CALLERS = st.builds(
    Caller,
    st.sampled_from(CallerKind),
    st.text(max_size=30),
    account=IDS,
    live=st.booleans(),
    scopes=st.frozensets(st.text(max_size=20), max_size=5),
    role=TEXT,
    subject=IDS,
    person=IDS,
    session=IDS,
    acr=TEXT,
    federated=st.booleans(),
    auth_time=st.none() | st.datetimes(min_value=datetime(2020, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 — naive bound
    on_behalf_of=TEXT,
    request_id=st.text(max_size=30),
    idempotency_key=TEXT,
    address=TEXT,
    user_agent=TEXT,
    origin=TEXT,
)


@given(CALLERS)
def test_a_caller_arrives_as_it_was_sent(who: Caller) -> None:
    clock = FixedClock()

    token = CallerSigner("gateway", KEYS, clock).sign(who, "billing")
    issuer, arrived = CallerVerifier("billing", KEYS, clock).verify(token)

    assert (issuer, arrived) == ("gateway", who)
    assert token.isascii()


def test_requests_of_one_caller_keep_their_particulars() -> None:
    clock = FixedClock()
    signer, verifier = CallerSigner("gateway", KEYS, clock), CallerVerifier("billing", KEYS, clock)
    first = replace(READER, request_id="a", idempotency_key="k", address="192.0.2.1", user_agent="u", origin="o")
    second = replace(READER, request_id="b")

    assert [verifier.verify(signer.sign(who, "billing"))[1] for who in (first, second)] == [first, second]


def test_a_call_to_a_service_without_a_shared_key_is_a_fault_of_the_platform() -> None:
    with pytest.raises(GatefoldError) as caught:
        CallerSigner("gateway", KEYS, FixedClock()).sign(READER, "notify")

    assert (caught.value.kind, caught.value.reason) == (Kind.INTERNAL, "caller_key_missing")


def test_a_key_can_be_replaced_while_it_is_used() -> None:
    clock = FixedClock()
    old, new = b"o" * 32, b"n" * 32
    both = CallerVerifier("billing", {"gateway>billing": (new, old)}, clock)

    for signing in ((old,), (old, new), (new, old)):
        token = CallerSigner("gateway", {"gateway>billing": signing}, clock).sign(READER, "billing")
        assert both.verify(token)[1] == READER


def test_keys_are_read_from_configuration() -> None:
    one, two = base64.b64encode(b"a" * 32).decode(), base64.b64encode(b"b" * 40).decode()
    text = orjson.dumps({"gateway>billing": one, "billing>notify": [two, one]}).decode()

    assert CallerConfig(Secret(text)).keys() == {
        "gateway>billing": (b"a" * 32,),
        "billing>notify": (b"b" * 40, b"a" * 32),
    }


@pytest.mark.parametrize(
    "text",
    ["", "[]", "nonsense", '{"gateway>billing": "c2hvcnQ="}', '{"gateway>billing": "???"}', '{"gateway>billing": 5}',
     orjson.dumps({"gateway>billing": base64.b64encode(b"k" * 65).decode()}).decode(),
     '{"gatewaybilling": "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE="}'],
)  # fmt: skip
def test_keys_that_cannot_be_used_are_refused_without_showing_them(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        CallerConfig(Secret(text)).keys()

    assert "c2hvcnQ" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_outside_of_a_request_there_is_no_caller() -> None:
    with pytest.raises(GatefoldError) as caught:
        caller.current()

    assert caught.value.reason == "caller_missing"
    assert caller.current_or_none() is None


def test_within_a_request_its_caller_is_current() -> None:
    with caller.serving(READER):
        assert caller.current() is READER
    assert caller.current_or_none() is None


async def test_requests_that_are_served_at_once_keep_their_callers_apart() -> None:
    met = asyncio.Barrier(2)

    async def serve(who: Caller) -> Caller:
        caller.enter(who)
        await met.wait()
        return caller.current()

    other = Caller(CallerKind.ANONYMOUS, "anonymous")

    assert await asyncio.gather(serve(READER), serve(other)) == [READER, other]
    assert caller.current_or_none() is None


def test_a_call_from_within_a_request_is_made_by_the_service_on_behalf_of_the_caller() -> None:
    with caller.serving(READER):
        made = caller.outgoing("billing")

    assert made == Caller(
        CallerKind.SERVICE,
        "service:billing",
        account=ACCOUNT,
        live=False,
        request_id="req_1",
        on_behalf_of="subj_1",
    )


def test_the_first_actor_of_a_chain_of_calls_stays_known() -> None:
    with caller.serving(caller.service_caller("billing", ACCOUNT, request_id="r", on_behalf_of="subj_1")):
        assert caller.outgoing("subscriber").on_behalf_of == "subj_1"


def test_whom_to_act_as_can_be_chosen() -> None:
    with caller.serving(Caller(CallerKind.ANONYMOUS, "anonymous")):
        with caller.acting(READER):
            assert caller.outgoing("gateway") is READER
        assert caller.outgoing("gateway").kind is CallerKind.SERVICE


def test_work_that_no_request_started_says_whom_it_is_for() -> None:
    with pytest.raises(GatefoldError) as caught:
        caller.outgoing("billing")

    assert caught.value.reason == "caller_missing"


def test_accounts_and_subjects_can_be_required() -> None:
    assert READER.require_account() == ACCOUNT
    assert READER.require_subject() == SUBJECT
    nobody = Caller(CallerKind.ANONYMOUS, "anonymous")
    with pytest.raises(GatefoldError) as caught:
        nobody.require_account()
    assert caught.value.kind is Kind.UNAUTHENTICATED
    with pytest.raises(GatefoldError) as caught:
        nobody.require_subject()
    assert caught.value.kind is Kind.FORBIDDEN
