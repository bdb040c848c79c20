"""What a sign-in still needs, and what assurance it ends with."""

import pytest

from services.auth.domain import session, sign_in
from services.auth.domain.sign_in import (
    EMAIL_CODE,
    EMAIL_LINK,
    FEDERATED,
    PASSKEY,
    PASSWORD,
    RECOVERY_CODE,
    SECURITY_KEY,
    TOTP,
    Standing,
)

PLAIN = Standing()
ENROLLED = Standing(factors=(TOTP,))
BREACHED = Standing(password_must_change=True)


@pytest.mark.parametrize("first", [PASSWORD, EMAIL_LINK, FEDERATED])
def test_one_factor_is_enough_where_no_other_is_set_up(first: str) -> None:
    assert sign_in.step((first,), PLAIN) is None
    assert sign_in.acr((first,), PLAIN) == session.AAL1


@pytest.mark.case("auth-34")
@pytest.mark.parametrize("first", [PASSWORD, EMAIL_LINK, FEDERATED])
def test_a_factor_that_is_set_up_is_asked_for_whatever_came_first(first: str) -> None:
    assert sign_in.step((first,), ENROLLED) == sign_in.SECOND_FACTOR
    assert sign_in.step((first, TOTP), ENROLLED) is None
    assert sign_in.acr((first, TOTP), ENROLLED) == session.AAL2


def test_a_passkey_is_two_factors_by_itself() -> None:
    assert sign_in.step((PASSKEY,), ENROLLED) is None
    assert sign_in.acr((PASSKEY,), ENROLLED) == session.AAL2


def test_a_security_key_is_a_factor_beside_another_and_not_two() -> None:
    touched = Standing(factors=(SECURITY_KEY,))
    assert not sign_in.strong((SECURITY_KEY,))
    assert not sign_in.strong((SECURITY_KEY, TOTP))
    for first in (PASSWORD, EMAIL_LINK, FEDERATED):
        assert sign_in.step((first,), touched) == sign_in.SECOND_FACTOR
        assert sign_in.acr((first, SECURITY_KEY), touched) == session.AAL2


def test_two_proofs_of_one_kind_are_one_factor() -> None:
    assert not sign_in.strong((PASSWORD, EMAIL_LINK))
    assert not sign_in.strong((TOTP, RECOVERY_CODE))


@pytest.mark.case("auth-11")
def test_a_breached_password_is_changed_after_the_second_factor_and_before_any_token() -> None:
    assert sign_in.step((PASSWORD,), BREACHED) == sign_in.CHANGE_PASSWORD
    both = Standing(factors=(TOTP,), password_must_change=True)
    assert sign_in.step((PASSWORD,), both) == sign_in.SECOND_FACTOR
    assert sign_in.step((PASSWORD, TOTP), both) == sign_in.CHANGE_PASSWORD
    assert sign_in.step((EMAIL_LINK,), BREACHED) is None


@pytest.mark.case("auth-45")
def test_who_must_have_a_factor_and_has_none_may_do_nothing_but_add_one() -> None:
    required = Standing(factor_required=True)
    assert sign_in.step((PASSWORD,), required) is None
    assert sign_in.acr((PASSWORD,), required) == session.ENROL
    assert sign_in.acr((PASSWORD, TOTP), required) == session.AAL2


@pytest.mark.case("auth-34")
def test_a_code_in_the_mailbox_that_the_link_came_to_is_no_second_factor() -> None:
    both = Standing(factors=(TOTP, EMAIL_CODE))
    assert not sign_in.strong((EMAIL_LINK, EMAIL_CODE))
    assert sign_in.methods((EMAIL_LINK,), both) == (TOTP,)
    assert sign_in.methods((PASSWORD,), both) == (TOTP, EMAIL_CODE)
    assert sign_in.step((EMAIL_LINK, EMAIL_CODE), both) == sign_in.SECOND_FACTOR
    assert sign_in.strong((EMAIL_LINK, EMAIL_CODE, PASSWORD))


def test_a_session_alone_is_not_proven_anew_by_a_code_by_mail() -> None:
    assert sign_in.methods((), Standing(factors=(EMAIL_CODE, RECOVERY_CODE))) == (RECOVERY_CODE,)
