"""Owns the statements on how often rules matched."""

from datetime import datetime
from uuid import UUID

from libs.postgres import Connection
from services.gateway.domain.register import HitCounts, Hits


async def add(conn: Connection, counts: HitCounts, hour: datetime) -> None:
    """Adds to the counts of an hour; rules that are gone are passed over."""
    # In one order for everybody, so that no two processes wait for each other.
    rules = sorted(counts)
    await conn.execute(
        """
        INSERT INTO rule_hit AS held (rule_id, hour, enforced, shadow, failed)
        SELECT rule.id, $2, added.enforced, added.shadow, added.failed
        FROM unnest($1::uuid[], $3::bigint[], $4::bigint[], $5::bigint[])
            AS added (rule_id, enforced, shadow, failed)
        JOIN rule ON rule.id = added.rule_id ORDER BY rule.id
        ON CONFLICT (rule_id, hour) DO UPDATE
        SET enforced = held.enforced + excluded.enforced, shadow = held.shadow + excluded.shadow,
            failed = held.failed + excluded.failed
        """,
        rules,
        hour,
        [counts[rule].enforced for rule in rules],
        [counts[rule].shadow for rule in rules],
        [counts[rule].failed for rule in rules],
    )


async def of_rule(conn: Connection, rule: UUID, since: datetime) -> list[tuple[datetime, Hits]]:
    """Reads a rule's counts by hour, newest first."""
    rows = await conn.fetch(
        "SELECT hour, enforced, shadow, failed FROM rule_hit WHERE rule_id = $1 AND hour >= $2 ORDER BY hour DESC",
        rule,
        since,
    )
    return [(row["hour"], Hits(row["enforced"], row["shadow"], row["failed"])) for row in rows]


async def summed(conn: Connection, since: datetime) -> list[tuple[UUID, Hits, datetime]]:
    """Reads all rules' counts and the last hour of each, most first."""
    rows = await conn.fetch(
        """
        SELECT rule_id, sum(enforced)::bigint AS enforced, sum(shadow)::bigint AS shadow,
            sum(failed)::bigint AS failed, max(hour) AS last_hour
        FROM rule_hit WHERE hour >= $1 GROUP BY rule_id ORDER BY sum(enforced) + sum(shadow) DESC, rule_id
        """,
        since,
    )
    return [(row["rule_id"], Hits(row["enforced"], row["shadow"], row["failed"]), row["last_hour"]) for row in rows]


async def forget(conn: Connection, before: datetime) -> None:
    """Deletes counts of hours that are long over."""
    await conn.execute("DELETE FROM rule_hit WHERE hour < $1", before)
