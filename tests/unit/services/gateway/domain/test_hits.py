"""Hits are what was added to totals, apart by mode, handed over once, given back whole, and bounded."""

from uuid import UUID

from services.gateway.domain.hits import MOST_RULES, HitCounter
from services.gateway.domain.register import Hits

RULE, OTHER = UUID(int=1), UUID(int=2)


def test_what_was_added_is_counted_by_mode_and_handed_over_once() -> None:
    counter = HitCounter()
    counter.advance({RULE: (3, 1), OTHER: (5, 0)}, {RULE})
    assert counter.take() == {RULE: Hits(3, 0, 1), OTHER: Hits(0, 5)}
    counter.advance({RULE: (4, 1), OTHER: (5, 0)}, {RULE})
    assert counter.take() == {RULE: Hits(1)}
    assert counter.take() == {}


def test_matches_belong_to_the_mode_that_a_rule_had_until_then() -> None:
    counter = HitCounter()
    counter.advance({RULE: (3, 0)}, ())
    counter.advance({RULE: (5, 0)}, {RULE})
    assert counter.take() == {RULE: Hits(2, 3)}


def test_a_rule_that_was_gone_meanwhile_is_counted_from_nothing() -> None:
    counter = HitCounter()
    counter.advance({RULE: (3, 0)}, {RULE})
    counter.advance({}, ())
    counter.advance({RULE: (2, 0)}, {RULE})
    assert counter.take() == {RULE: Hits(5)}
    counter.advance({RULE: (1, 0)}, {RULE})
    assert counter.take() == {RULE: Hits(1)}


def test_what_is_given_back_is_added_to_what_came_meanwhile() -> None:
    counter = HitCounter()
    counter.advance({RULE: (1, 1)}, {RULE})
    taken = counter.take()
    counter.advance({RULE: (2, 1)}, ())
    counter.give_back(taken)
    assert counter.take() == {RULE: Hits(1, 1, 1)}


def test_no_more_rules_are_counted_than_there_can_be() -> None:
    counter = HitCounter()
    totals = {UUID(int=number): (1, 0) for number in range(MOST_RULES + 5)}
    counter.advance(totals, ())
    counter.advance({**totals, UUID(int=0): (2, 0)}, ())
    counts = counter.take()
    assert len(counts) == MOST_RULES
    assert counts[UUID(int=0)] == Hits(0, 2)
