"""What the abuse report leaves out: every detector once, never two of a family together, and families whole."""

from collections import Counter

import pytest

from services.abuse.engine.catalogue import Catalogue
from tests.bench.abuse.runs import one_of_each, simulated, whole_families
from tests.support.traffic.attackers import FAMILIES

DETECTORS = Catalogue.load().detectors
FAMILY = {detector.name: detector.family for detector in DETECTORS}


@pytest.mark.case("edge-17")
def test_every_detector_is_left_out_once_and_no_two_of_a_family_together() -> None:
    rounds = one_of_each(DETECTORS)
    assert Counter(name for names in rounds for name in names) == Counter(FAMILY.keys())
    for names in rounds:
        assert len({FAMILY[name] for name in names}) == len(names)


@pytest.mark.case("edge-16")
def test_every_family_is_left_out_whole() -> None:
    rounds = whole_families(DETECTORS)
    assert len(rounds) < len(set(FAMILY.values()))
    for names in rounds:
        gone = {FAMILY[name] for name in names}
        assert set(names) == {name for name, family in FAMILY.items() if family in gone}
    assert sorted(name for names in rounds for name in names) == sorted(FAMILY)


def test_a_detectors_family_is_one_that_is_simulated() -> None:
    assert {simulated(family) for family in FAMILY.values()} == set(FAMILIES)
