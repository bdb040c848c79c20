"""Counts add up, and an import is done when all records were looked at."""

from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from services.subscriber.domain.import_job import Counts, ImportJob

AT = datetime(2026, 1, 1, tzinfo=UTC)
NUMBER = st.integers(0, 5)


def counts(created: int, updated: int, unchanged: int, duplicates: int, reasons: dict[str, int]) -> Counts:
    return Counts(created, updated, unchanged, duplicates, sum(reasons.values()), reasons)


COUNTS = st.builds(
    counts, NUMBER, NUMBER, NUMBER, NUMBER, st.dictionaries(st.sampled_from(["email_missing", "too_long"]), NUMBER)
)


@given(st.lists(COUNTS, min_size=1, max_size=6))
def test_an_import_is_done_exactly_when_every_record_was_looked_at(parts: list[Counts]) -> None:
    total = sum(part.looked_at for part in parts)
    job = ImportJob(UUID(int=1), "running", total, Counts(), (), "premium", "", AT, None)
    seen = 0
    for part in parts:
        job = job.advanced(part, AT)
        seen += part.looked_at
        assert job.counts.looked_at == seen
        assert (job.state == "done") == (seen == total)
        assert (job.finished_at is None) == (seen < total)
    assert sum(job.counts.refused_by_reason.values()) == job.counts.refused
