"""Journeys: what somebody may make, and what nobody makes."""

from datetime import UTC, datetime, timedelta

import pytest

from services.auth.domain.travel import Place, distance_km, impossible

BERLIN, PARIS, POTSDAM = Place(52.52, 13.40), Place(48.86, 2.35), Place(52.39, 13.06)
SYDNEY, AUCKLAND, SUVA = Place(-33.87, 151.21), Place(-36.85, 174.76), Place(-18.14, 178.44)
APIA = Place(-13.83, -171.77)
NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("one", "other", "km"),
    [
        (BERLIN, PARIS, 878),
        (BERLIN, SYDNEY, 16_094),
        (SUVA, APIA, 1_152),
        (Place(0, 0), Place(0, 180), 20_015),
        (Place(90, 0), Place(90, 120), 0),
        (BERLIN, BERLIN, 0),
    ],
)
def test_ways_are_those_of_the_globe_also_across_the_date_line(one: Place, other: Place, km: float) -> None:
    assert distance_km(one, other) == pytest.approx(km, rel=0.005, abs=1)
    assert distance_km(other, one) == pytest.approx(distance_km(one, other))


@pytest.mark.parametrize(
    ("before", "after", "taken", "expected"),
    [
        (BERLIN, SYDNEY, timedelta(hours=2), True),
        (BERLIN, SYDNEY, timedelta(hours=17), True),
        (BERLIN, SYDNEY, timedelta(hours=19), False),
        (BERLIN, PARIS, timedelta(minutes=30), True),
        (BERLIN, PARIS, timedelta(hours=1), False),
        (BERLIN, POTSDAM, timedelta(0), False),
        (SYDNEY, AUCKLAND, timedelta(0), True),
        # The clocks of two machines differ a little.
        (BERLIN, SYDNEY, timedelta(seconds=-2), True),
        (BERLIN, BERLIN, timedelta(seconds=-2), False),
    ],
)
def test_who_would_have_flown_faster_than_an_airliner_has_not(
    before: Place, after: Place, taken: timedelta, expected: bool
) -> None:
    assert impossible(before, NOON, after, NOON + taken) is expected
