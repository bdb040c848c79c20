"""What may be done about cases, and by how many."""

import pytest

from libs.errors import GatefoldError
from services.abuse.domain.case import ActionKind, check_action, check_note, needs_four_eyes
from services.abuse.domain.finding import Scope

pytestmark = pytest.mark.case("edge-18")

WEEK = 7 * 86_400


@pytest.mark.parametrize(
    ("kind", "seconds", "two"),
    [
        (ActionKind.LIFT, 0, False),
        (ActionKind.EXTEND, WEEK, False),
        (ActionKind.EXTEND, WEEK + 1, True),
        (ActionKind.BLOCK, WEEK, False),
        (ActionKind.BLOCK, WEEK + 1, True),
        (ActionKind.REVOKE, 1, True),
    ],
)
def test_what_ends_sessions_or_blocks_for_long_takes_two(kind: ActionKind, seconds: int, two: bool) -> None:
    assert needs_four_eyes(kind, seconds) is two


@pytest.mark.parametrize("scope", [Scope.ADDRESS, Scope.NETWORK, Scope.DEVICE, Scope.USER_AGENT])
def test_an_address_has_no_sessions_to_end(scope: Scope) -> None:
    with pytest.raises(GatefoldError, match="action_scope"):
        check_action(ActionKind.REVOKE, scope, 60)


@pytest.mark.parametrize(
    "note",
    [
        "",
        "Looks like the office of a school; 40 people in 10 minutes at 9:30.",
        "Same pattern as case_01m8rt6fjsedktq6q6218amvgt of 2026-11-30.",
        "Score 0.987, 12 targets of 8.",
        "x" * 500,
    ],
)
def test_an_ordinary_note_is_taken(note: str) -> None:
    check_note(note)
