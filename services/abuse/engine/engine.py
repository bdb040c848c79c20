"""Owns the way of events through all detectors."""

from collections.abc import Iterable, Sequence

from gatefold.activity.v1 import activity_pb2

from services.abuse.domain.finding import Entity, Finding
from services.abuse.engine.catalogue import Catalogue


class Engine:
    """Keeps all signals. It reads no clock: the same events give the same findings, however they are cut in batches."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def feed(
        self, activities: Sequence[activity_pb2.Activity], received_at: Sequence[int] | None = None
    ) -> list[Finding]:
        """Takes events in the order of their stream and returns what detectors say, in that order.

        `received_at` has the Unix milliseconds of each one's stream entry (its id begins with them): an event that says
        it is later, or more than an hour earlier, is taken to be from then. Without it events are believed.
        """
        raise NotImplementedError

    def known(self, findings: Iterable[Finding]) -> dict[Entity, int]:
        """Returns how many good actors were lately seen where the findings point: readers known for at least a day who
        signed in there.
        """
        raise NotImplementedError

    def snapshot(self) -> bytes:
        """Returns all state."""
        raise NotImplementedError

    def restore(self, snapshot: bytes) -> None:
        """Takes up where a snapshot was made. Raises ValueError for a snapshot of other detectors or damaged."""
        raise NotImplementedError
