"""Whose sign-in a request is about."""

from uuid import UUID

import pytest

from libs import caller
from libs.caller import Caller, CallerKind
from libs.errors import GatefoldError
from libs.postgres import PLATFORM
from services.auth.domain.sign_in import Door
from services.auth.usecases import doors

ACCOUNT, WHO = UUID(int=1), UUID(int=2)


@pytest.mark.parametrize(
    ("who", "expected", "owner"),
    [
        (
            Caller(CallerKind.SUBSCRIBER, "subj", ACCOUNT, live=False, subject=WHO),
            ("SUBSCRIBER", ACCOUNT, False),
            ACCOUNT,
        ),
        (Caller(CallerKind.STAFF, "per", ACCOUNT, person=WHO), ("STAFF", ACCOUNT, True), PLATFORM),
        (Caller(CallerKind.PLATFORM_OPERATOR, "per", person=WHO), ("PLATFORM_OPERATOR", PLATFORM, True), PLATFORM),
    ],
)
def test_the_callers_own_door(who: Caller, expected: tuple[str, UUID, bool], owner: UUID) -> None:
    with caller.serving(who):
        door = doors.own()
    assert door == Door(*expected, WHO)
    assert door.owner == owner


def test_a_key_has_no_door() -> None:
    with caller.serving(Caller(CallerKind.SECRET_KEY, "key", ACCOUNT)), pytest.raises(GatefoldError, match="plane"):
        doors.own()
