"""Attacks on the signed caller: forging, changing, replaying and redirecting it."""

import base64
import hashlib
import hmac
from datetime import timedelta
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.caller import Caller, CallerKind, CallerSigner, CallerVerifier
from libs.clock import FixedClock
from libs.errors import GatefoldError, Kind

KEY = b"k" * 32
OTHER_KEY = b"o" * 32
KEYS = {"gateway>billing": (KEY,), "gateway>notify": (OTHER_KEY,), "billing>gateway": (OTHER_KEY,)}
READER = Caller(CallerKind.SUBSCRIBER, "subj_1", account=UUID(int=1), subject=UUID(int=2))


def verifier(clock: FixedClock | None = None) -> CallerVerifier:
    return CallerVerifier("billing", KEYS, clock or FixedClock())


def signed(clock: FixedClock | None = None, audience: str = "billing") -> str:
    return CallerSigner("gateway", KEYS, clock or FixedClock()).sign(READER, audience)


PARTICULARS = {"iss", "aud", "exp", "request_id", "idempotency_key", "address", "user_agent", "origin"}


def forged(claims: dict[str, object], key: bytes = KEY) -> str:
    own = {name: value for name, value in claims.items() if name in PARTICULARS}
    lasting = {name: value for name, value in claims.items() if name not in PARTICULARS}
    document = orjson.dumps(own) + b"\n" + orjson.dumps(lasting)
    return base64.b64encode(mac(document, key) + document).decode()


def mac(document: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(document, key=key, digest_size=32, person=b"gatefold caller").digest()


def claims(token: str) -> dict[str, object]:
    own, _, lasting = base64.b64decode(token)[32:].partition(b"\n")
    return {**orjson.loads(own), **orjson.loads(lasting)}


def refused(token: str, by: CallerVerifier | None = None) -> str:
    with pytest.raises(GatefoldError) as caught:
        (by or verifier()).verify(token)
    assert caught.value.kind is Kind.UNAUTHENTICATED
    return caught.value.reason


def test_what_the_forger_of_these_tests_makes_would_be_taken_with_the_right_key() -> None:
    assert verifier().verify(forged(claims(signed())))[1] == READER


def test_a_changed_claim_does_not_pass_with_the_old_signature() -> None:
    token = signed()
    more = base64.b64decode(forged({**claims(token), "kind": CallerKind.PLATFORM_OPERATOR.value}, OTHER_KEY))

    assert refused(base64.b64encode(base64.b64decode(token)[:32] + more[32:]).decode()) == "caller_invalid"


@given(st.data())
def test_no_changed_letter_passes(data: st.DataObject) -> None:
    token = signed()
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.characters(codec="ascii").filter(lambda other: other != token[place]))
    changed = token[:place] + letter + token[place + 1 :]

    # Also not where base64 has bits that mean nothing.
    assert refused(changed) == "caller_invalid"


@pytest.mark.parametrize("key", [OTHER_KEY, b"", b"\0" * 32])
def test_a_signature_by_another_key_does_not_pass(key: bytes) -> None:
    assert refused(forged(claims(signed()), key)) == "caller_invalid"


@pytest.mark.parametrize("issuer", ["nobody", "notify", "", None, 5, ["gateway"], {"a": 1}])
def test_an_issuer_without_a_key_does_not_pass(issuer: object) -> None:
    for key in (KEY, OTHER_KEY, b"\0" * 32):
        assert refused(forged({**claims(signed()), "iss": issuer}, key)) == "caller_invalid"


def test_a_token_for_another_service_does_not_pass() -> None:
    assert refused(signed(audience="notify")) == "caller_invalid"


def test_a_token_for_another_service_does_not_pass_even_when_both_use_one_key() -> None:
    shared = {"gateway>billing": (KEY,), "gateway>notify": (KEY,)}
    token = CallerSigner("gateway", shared, FixedClock()).sign(READER, "notify")

    assert refused(token, CallerVerifier("billing", shared, FixedClock())) == "caller_invalid"


def test_a_service_cannot_turn_around_a_key_that_it_signs_with() -> None:
    # billing holds billing>gateway to sign with; nothing signed by it is for billing itself.
    own = {**claims(signed()), "iss": "billing"}

    assert refused(forged(own, OTHER_KEY)) == "caller_invalid"


def test_a_token_is_good_for_thirty_seconds_and_no_longer() -> None:
    clock = FixedClock()
    token = signed(clock)
    clock.advance(timedelta(seconds=29))
    assert verifier(clock).verify(token)[1] == READER
    clock.advance(timedelta(seconds=1))

    assert refused(token, verifier(clock)) == "caller_expired"


@pytest.mark.parametrize("expiry", [None, "9999999999", True, 9e99, [9999999999]])
def test_an_expiry_that_is_no_number_does_not_pass(expiry: object) -> None:
    assert refused(forged({**claims(signed()), "exp": expiry})) == "caller_expired"


@pytest.mark.parametrize(
    "change",
    [{"kind": 99}, {"kind": "STAFF"}, {"account": "x"}, {"account": 5}, {"auth_time": "x"}, {"scopes": 5}],
)
def test_claims_that_cannot_be_read_do_not_pass(change: dict[str, object]) -> None:
    assert refused(forged({**claims(signed()), **change})) == "caller_invalid"


@pytest.mark.parametrize("missing", ["kind", "actor", "live", "aud", "iss"])
def test_claims_that_are_missing_do_not_pass(missing: str) -> None:
    left = claims(signed())
    del left[missing]

    assert refused(forged(left)) == "caller_invalid"


@pytest.mark.parametrize(
    "token",
    ["", ".", "a", "é", "\ud800", "bnVsbA==", "W10=", "A" * 44, "A" * 44 + "e30K", "A" * 43 + "=", "A" * 100_000],
)
def test_garbage_does_not_pass(token: str) -> None:
    assert refused(token) == "caller_invalid"


@given(st.text())
def test_no_text_passes_or_breaks_the_verifier(token: str) -> None:
    assert refused(token) == "caller_invalid"


def test_signatures_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(first: bytes, second: bytes) -> bool:
        compared.append((first, second))
        return first == second

    monkeypatch.setattr(hmac, "compare_digest", compare)

    refused(forged(claims(signed()), OTHER_KEY))
    refused(forged({**claims(signed()), "iss": "nobody"}))

    # Also for an issuer that is not known, which would otherwise be told by the time it takes.
    assert len(compared) == 2
