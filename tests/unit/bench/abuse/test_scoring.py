"""The figures of the abuse report, on runs that are small enough to count by hand."""

import pytest

from tests.bench.abuse.scoring import Share, calibration, score, shuffled_precision
from tests.support.traffic.simulation import Outcome, Record
from tests.support.traffic.world import Actor, Answer, Level, World


def record(kind: str, level: Level | None, **figures: float) -> Record:
    def behaviour():  # type: ignore[no-untyped-def]  # never run
        yield from ()

    made = Record(Actor(kind, kind, behaviour(), level), requests=10, began_at=5.0)
    for name, value in figures.items():
        setattr(made, name, value)
    return made


def outcome() -> Outcome:
    found = record(
        "scraping",
        Level.NAIVE,
        acted_on=3,
        refused=3,
        first_acted_at=15.0,
        damage_before=2,
        damage=4,
        damage_undefended=10,
    )
    missed = record("scraping", Level.SLOW, damage=10, damage_undefended=10)
    wrong = record("office", None, acted_on=1, refused=1, first_acted_at=7.0, last=Answer.SERVED)
    right = [record("reader", None) for _ in range(7)]
    return Outcome(World(1, hours=24), [found, missed, wrong, *right], events=100)


@pytest.mark.case("edge-17")
def test_found_missed_and_wrongly_suspected_are_counted() -> None:
    figures = score([outcome()])
    assert (figures.precision.part, figures.precision.whole) == (1, 2)
    assert (figures.recall.part, figures.recall.whole) == (1, 2)
    assert figures.f1 == 0.5
    assert figures.by_cell["scraping", Level.NAIVE].value == 1.0
    assert figures.by_cell["scraping", Level.SLOW].value == 0.0
    assert figures.wrongly["office"].value == 1.0
    assert figures.per_thousand_days == pytest.approx(125.0)
    assert (figures.refused_honest.part, figures.refused_honest.whole) == (1, 80)
    assert figures.seconds == (10.0, 10.0)
    assert (figures.damage_before, figures.damage_kept) == (0.1, 0.7)


@pytest.mark.case("edge-17")
def test_an_interval_is_wilsons() -> None:
    low, high = Share(8, 10).interval
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert Share(0, 0).interval == (0.0, 1.0)
    assert Share(10, 10).interval[1] == 1.0


@pytest.mark.case("edge-17")
def test_labels_that_are_dealt_out_anew_leave_nothing_but_how_common_attackers_are() -> None:
    shuffled, prevalence = shuffled_precision([outcome()])
    assert prevalence == 0.2
    assert abs(shuffled - prevalence) < 0.1


def test_confidence_is_held_against_what_was_right() -> None:
    said = [(0.55, False), (0.56, True), (0.95, True), (0.97, True)]
    assert [(round(c, 3), r, n) for c, r, n in calibration(said)] == [(0.555, 0.5, 2), (0.96, 1.0, 2)]
