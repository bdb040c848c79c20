"""Owns the statements on entitlements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import PLATFORM, Connection
from services.subscriber.domain.entitlement import Entitlement


@dataclass(frozen=True)
class Head:
    """The row that orders a reader's changes: events so far, and the features of the last one."""

    subject_id: UUID
    sequence: int
    features: tuple[str, ...]


async def to_feature(
    conn: Connection,
    account: UUID,
    subject: UUID | None,
    feature: str,
    seen: Sequence[tuple[str, bytes]],
    wall: datetime,
) -> tuple[list[Entitlement], bool]:
    """Returns a reader's rights to one feature, whether they hold or not: one descent of the primary key.

    And whether a verdict on one of `seen` (scope, hash) (libs/verdicts) holds at `wall`, in the same query.
    """
    rows = await conn.fetch(
        """
        SELECT feature, source_id, complimentary, active_from, active_until, walled
        FROM (SELECT EXISTS (
            SELECT FROM held_verdict JOIN unnest($4::text[], $5::bytea[]) AS seen (scope, entity_hash)
                USING (scope, entity_hash)
            WHERE account_id IN ($1, $6) AND NOT lifted AND until > $7) AS walled) AS verdicts
        LEFT JOIN entitlement ON account_id = $1 AND subject_id = $2 AND feature = $3
        """,
        account,
        subject,
        feature,
        [scope for scope, _ in seen],
        [entity for _, entity in seen],
        PLATFORM,
        wall,
    )
    return [_entitlement(row) for row in rows if row["feature"] is not None], bool(rows[0]["walled"])


async def of_readers(conn: Connection, account: UUID, subjects: Sequence[UUID]) -> dict[UUID, list[Entitlement]]:
    """Returns all rights of these readers, by feature; a reader without any is left out."""
    rows = await conn.fetch(
        """
        SELECT subject_id, feature, source_id, complimentary, active_from, active_until
        FROM entitlement WHERE account_id = $1 AND subject_id = ANY($2::uuid[])
        ORDER BY subject_id, feature, source_id
        """,
        account,
        list(subjects),
    )
    rights: dict[UUID, list[Entitlement]] = {}
    for row in rows:
        rights.setdefault(row["subject_id"], []).append(_entitlement(row))
    return rights


async def put(conn: Connection, account: UUID, rights: Sequence[tuple[UUID, Entitlement]]) -> None:
    """Adds rights of readers, or replaces the period of those that are there, in one statement."""
    await conn.execute(
        """
        INSERT INTO entitlement (account_id, subject_id, feature, source_id, complimentary, active_from, active_until)
        SELECT $1, new.subject_id, new.feature, coalesce(new.subscription_id, new.subject_id),
               new.subscription_id IS NULL, new.active_from, new.active_until
        FROM unnest($2::uuid[], $3::text[], $4::uuid[], $5::timestamptz[], $6::timestamptz[])
          AS new (subject_id, feature, subscription_id, active_from, active_until)
        ON CONFLICT (account_id, subject_id, feature, source_id)
        DO UPDATE SET active_from = excluded.active_from, active_until = excluded.active_until
        """,
        account,
        [subject for subject, _ in rights],
        [right.feature for _, right in rights],
        [right.subscription_id for _, right in rights],
        [right.active_from for _, right in rights],
        [right.active_until for _, right in rights],
    )


async def lock_heads(conn: Connection, account: UUID, subjects: Sequence[UUID]) -> dict[UUID, Head]:
    """Returns these readers' heads, which no one else changes until the transaction ends; makes missing ones."""
    rows = await conn.fetch(
        """
        INSERT INTO entitlement_head (account_id, subject_id, sequence, features)
        SELECT $1, subject_id, 0, '{}' FROM unnest($2::uuid[]) AS wanted (subject_id)
        ON CONFLICT (account_id, subject_id) DO UPDATE SET sequence = entitlement_head.sequence
        RETURNING subject_id, sequence, features
        """,
        account,
        # Locks are taken in one order by everyone.
        sorted(set(subjects)),
    )
    return {row["subject_id"]: Head(row["subject_id"], row["sequence"], tuple(row["features"])) for row in rows}


async def advance_heads(conn: Connection, account: UUID, features: Mapping[UUID, Sequence[str]]) -> None:
    """Counts one more event for each of these readers and remembers the features it announces."""
    await conn.execute(
        """
        UPDATE entitlement_head SET sequence = entitlement_head.sequence + 1,
               features = CASE WHEN new.features = '' THEN '{}' ELSE string_to_array(new.features, ',') END
        FROM unnest($2::uuid[], $3::text[]) AS new (subject_id, features)
        WHERE entitlement_head.account_id = $1 AND entitlement_head.subject_id = new.subject_id
        """,
        account,
        list(features),
        # A feature's name has no comma in it, and unnest would flatten arrays.
        [",".join(names) for names in features.values()],
    )


def _entitlement(row: Any) -> Entitlement:
    return Entitlement(
        feature=row["feature"],
        subscription_id=None if row["complimentary"] else row["source_id"],
        active_from=row["active_from"],
        active_until=row["active_until"],
    )
