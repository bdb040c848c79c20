"""Owns the statements that clear away what is over; for the jobs role, a batch at a time."""

from datetime import datetime, timedelta

from libs.postgres import Connection

VERDICTS_KEPT = timedelta(days=90)
CASES_KEPT = timedelta(days=365)
CHANGES_KEPT = timedelta(hours=1)
"""Beyond the end of a verdict: whoever asks late still gets to see that it is over."""


async def clear(conn: Connection, now: datetime, limit: int) -> int:
    """Deletes one batch of each; returns how many rows."""
    statuses = [
        await conn.execute(
            "DELETE FROM verdict_change WHERE position IN"
            " (SELECT position FROM verdict_change WHERE until < $1 LIMIT $2)",
            now - CHANGES_KEPT,
            limit,
        ),
        await conn.execute(
            "DELETE FROM refused_request WHERE request_key IN"
            " (SELECT request_key FROM refused_request WHERE until < $1 LIMIT $2)",
            now,
            limit,
        ),
        await conn.execute(
            "DELETE FROM suppression WHERE (account_id, scope, entity_hash, detector) IN"
            " (SELECT account_id, scope, entity_hash, detector FROM suppression WHERE until < $1 LIMIT $2)",
            now,
            limit,
        ),
        await conn.execute(
            "DELETE FROM verdict WHERE (account_id, id) IN"
            " (SELECT account_id, id FROM verdict WHERE decided_at < $1 AND expires_at < $3 LIMIT $2)",
            now - VERDICTS_KEPT,
            limit,
            now,
        ),
        await conn.execute(
            "DELETE FROM review_case WHERE (account_id, id) IN"
            " (SELECT account_id, id FROM review_case WHERE updated_at < $1 LIMIT $2)",
            now - CASES_KEPT,
            limit,
        ),
    ]
    return sum(int(status.rpartition(" ")[2]) for status in statuses)
