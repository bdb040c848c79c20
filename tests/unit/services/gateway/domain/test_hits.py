"""Hits are counted apart by mode, handed over once, given back whole, and bounded."""

from uuid import UUID

from services.gateway.domain.hits import MOST_RULES, HitCounter
from services.gateway.domain.register import Hits

RULE, OTHER = UUID(int=1), UUID(int=2)


def test_hits_are_counted_by_rule_and_mode_and_handed_over_once() -> None:
    counter = HitCounter()
    for _ in range(3):
        counter.count(RULE, enforced=True)
    counter.count(RULE, enforced=False)
    counter.count(OTHER, enforced=False)
    assert counter.take() == {RULE: Hits(3, 1), OTHER: Hits(0, 1)}
    assert counter.take() == {}


def test_what_is_given_back_is_added_to_what_came_meanwhile() -> None:
    counter = HitCounter()
    counter.count(RULE, enforced=True)
    taken = counter.take()
    counter.count(RULE, enforced=True)
    counter.give_back(taken)
    assert counter.take() == {RULE: Hits(2, 0)}


def test_no_more_rules_are_counted_than_there_can_be() -> None:
    counter = HitCounter()
    for number in range(MOST_RULES + 5):
        counter.count(UUID(int=number), enforced=True)
    counter.count(UUID(int=0), enforced=True)
    counts = counter.take()
    assert len(counts) == MOST_RULES
    assert counts[UUID(int=0)] == Hits(2, 0)
