"""How often people agree with a detector, and when it is no longer acted on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.abuse.domain.precision import LEAST_LABELS, Precision

pytestmark = pytest.mark.case("edge-18")


@pytest.mark.parametrize(
    ("abuse", "legit", "lower", "upper"),
    # Newcombe 1998, table I, method 3 (the first three), and the formula worked by hand.
    [(81, 182, 0.2553, 0.3662), (15, 133, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (29, 1, 0.8333, 0.9941)],
)
def test_the_interval_is_wilsons(abuse: int, legit: int, lower: float, upper: float) -> None:
    found = Precision(abuse, legit).interval
    assert found == (pytest.approx(lower, abs=5e-5), pytest.approx(upper, abs=5e-5))


def test_without_labels_nothing_is_known() -> None:
    assert Precision(0, 0).interval == (0.0, 1.0)
    assert not Precision(0, 0).errs


@given(st.integers(0, 2_000), st.integers(0, 2_000))
def test_the_interval_holds_the_share(abuse: int, legit: int) -> None:
    held = Precision(abuse, legit)
    lower, upper = held.interval
    assert 0 <= lower <= upper <= 1
    if held.labels:
        assert lower - 1e-9 <= held.value <= upper + 1e-9


@pytest.mark.parametrize(
    ("abuse", "legit", "errs"),
    [(0, 19, False), (0, 20, True), (15, 5, False), (10, 10, True), (80, 20, False), (70, 30, True)],
)
def test_a_detector_errs_once_enough_people_said_so(abuse: int, legit: int, errs: bool) -> None:
    assert Precision(abuse, legit).errs is errs
    assert LEAST_LABELS == 20
