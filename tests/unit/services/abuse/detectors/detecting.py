"""What the tests of the catalogue share: the catalogue's engine, and who spoke about whom."""

from functools import cache

from services.abuse.domain.finding import Finding
from services.abuse.engine.catalogue import Catalogue
from services.abuse.engine.engine import Engine
from tests.support.activities import Story, hashed

DAY = 86_400.0
HOUR = 3_600.0


@cache
def catalogue() -> Catalogue:
    """Returns the catalogue as it is."""
    return Catalogue.load()


def found(story: Story) -> list[Finding]:
    """Returns what a new engine finds in a story."""
    return Engine(catalogue()).feed(story.in_order())


def families(findings: list[Finding]) -> set[str]:
    """Returns the families that spoke."""
    return {finding.reasons[0] for finding in findings}


def surest(findings: list[Finding], detector: str, kind: str, name: str) -> float:
    """Returns how sure a detector was about an entity at most; 0 when it said nothing."""
    wanted = hashed(kind, name)
    return max(
        (one.confidence for one in findings if one.detector == detector and one.entity_hash == wanted), default=0
    )


def accused(findings: list[Finding], family: str, *, least: float = 0.85) -> set[bytes]:
    """Returns what a family spoke about and would do something about."""
    return {one.entity_hash for one in findings if one.reasons[0] == family and one.confidence >= least}
