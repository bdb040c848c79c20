"""Owns the statements on cases and their steps."""

from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.abuse.domain.case import Case, CaseState, Judgement, Origin, Step, Wanted
from services.abuse.domain.finding import Scope

_COLUMNS = (
    "id, state, origin, severity, scope, entity_hash, reasons, detectors, confidence, audit_turn, appealed_at,"
    " claimed_by, claimed_until, judgement, judged_confidence, note, decided_by, decided_at, opened_at, updated_at,"
    " sequence"
)


async def add(conn: Connection, account: UUID, case: Case) -> bool:
    """Adds a case; returns whether it is new. An entity has one open case, an audit's turn one at all."""
    added = await conn.fetchval(
        """
        INSERT INTO review_case (account_id, id, origin, severity, scope, entity_hash, reasons, detectors, confidence,
                                 audit_turn, appealed_at, opened_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
        ON CONFLICT DO NOTHING RETURNING true
        """,
        account,
        case.id,
        case.origin.value,
        case.severity,
        case.scope.value,
        case.entity,
        list(case.reasons),
        list(case.detectors),
        case.confidence,
        case.audit_turn,
        case.appealed_at,
        case.opened_at,
        case.updated_at,
    )
    return bool(added)


async def save(conn: Connection, account: UUID, case: Case) -> None:
    """Writes what can change of a case."""
    await conn.execute(
        """
        UPDATE review_case
        SET state = $3, severity = $4, reasons = $5, detectors = $6, confidence = $7, appealed_at = $8, claimed_by = $9,
            claimed_until = $10, judgement = $11, judged_confidence = $12, note = $13, decided_by = $14,
            decided_at = $15, updated_at = $16, sequence = $17
        WHERE account_id = $1 AND id = $2
        """,
        account,
        case.id,
        case.state.value,
        case.severity,
        list(case.reasons),
        list(case.detectors),
        case.confidence,
        case.appealed_at,
        case.claimed_by,
        case.claimed_until,
        case.judgement.value if case.judgement else None,
        case.judged_confidence,
        case.note,
        case.decided_by,
        case.decided_at,
        case.updated_at,
        case.sequence,
    )


async def find(conn: Connection, account: UUID, case: UUID) -> Case | None:
    """Reads a case."""
    row = await conn.fetchrow(f"SELECT {_COLUMNS} FROM review_case WHERE account_id = $1 AND id = $2", account, case)  # noqa: S608 — a constant
    return _case(row) if row else None


async def lock(conn: Connection, account: UUID, case: UUID) -> Case | None:
    """Reads a case and keeps it from changing."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM review_case WHERE account_id = $1 AND id = $2 FOR UPDATE",  # noqa: S608 — a constant
        account,
        case,
    )
    return _case(row) if row else None


async def lock_latest(conn: Connection, account: UUID, scope: Scope, entity: bytes) -> Case | None:
    """Reads an entity's open case, or the one that was opened last, and keeps it from changing."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM review_case WHERE account_id = $1 AND scope = $2 AND entity_hash = $3"  # noqa: S608 — a constant
        " ORDER BY state = 'open' DESC, opened_at DESC LIMIT 1 FOR UPDATE",
        account,
        scope.value,
        entity,
    )
    return _case(row) if row else None


async def opened_since(conn: Connection, account: UUID, since: datetime) -> int:
    """Counts the cases that verdicts opened since a time."""
    return int(
        await conn.fetchval(
            "SELECT count(*) FROM review_case WHERE account_id = $1 AND opened_at >= $2 AND origin = 'verdict'",
            account,
            since,
        )
    )


async def page(conn: Connection, account: UUID, before: UUID, limit: int, wanted: Wanted) -> list[Case]:
    """Reads cases below an identifier, the newest first."""
    rows = await conn.fetch(
        f"SELECT {_COLUMNS} FROM review_case WHERE account_id = $1 AND id < $2 AND ($4::text IS NULL OR state = $4)"  # noqa: S608 — a constant
        " AND severity >= $5 AND ($6 = '' OR scope = $6) AND ($7 = '' OR $7 = ANY(reasons))"
        " AND ($8 = '' OR $8 = ANY(detectors)) AND ($9::text IS NULL OR origin = $9) ORDER BY id DESC LIMIT $3",
        account,
        before,
        limit,
        wanted.state.value if wanted.state else None,
        wanted.severity,
        wanted.scope,
        wanted.reason,
        wanted.detector,
        wanted.origin.value if wanted.origin else None,
    )
    return [_case(row) for row in rows]


async def add_step(conn: Connection, account: UUID, case: UUID, sequence: int, step: Step) -> None:
    """Writes down what happened to a case."""
    await conn.execute(
        "INSERT INTO case_step (account_id, case_id, sequence, kind, actor, detail, at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        account,
        case,
        sequence,
        step.kind,
        step.actor,
        step.detail,
        step.at,
    )


async def steps(conn: Connection, account: UUID, case: UUID, limit: int) -> list[Step]:
    """Reads the latest steps of a case, in their order."""
    rows = await conn.fetch(
        "SELECT kind, actor, detail, at FROM case_step WHERE account_id = $1 AND case_id = $2"
        " ORDER BY sequence DESC LIMIT $3",
        account,
        case,
        limit,
    )
    return [Step(row["kind"], row["actor"], row["detail"], row["at"]) for row in reversed(rows)]


async def linked(conn: Connection, account: UUID, case: UUID, limit: int) -> list[tuple[str, bytes, int, int]]:
    """Reads entities seen with a case's verdicts: scope, hash, with how many, and in how many other cases they are."""
    rows = await conn.fetch(
        """
        WITH own AS (
            SELECT link.scope, link.entity_hash, count(*) AS verdicts
            FROM verdict JOIN entity_link AS link ON link.account_id = $1 AND link.verdict_id = verdict.id
            WHERE verdict.account_id = $1 AND verdict.case_id = $2
                AND (link.scope, link.entity_hash) <> (verdict.scope, verdict.entity_hash)
            GROUP BY 1, 2 ORDER BY 3 DESC LIMIT $3
        )
        SELECT own.scope, own.entity_hash, own.verdicts,
               (SELECT count(DISTINCT verdict.case_id) FROM entity_link AS link
                JOIN verdict ON verdict.account_id = $1 AND verdict.id = link.verdict_id
                WHERE link.account_id = $1 AND link.scope = own.scope AND link.entity_hash = own.entity_hash
                    AND verdict.case_id <> $2) AS others
        FROM own ORDER BY own.verdicts DESC, own.scope
        """,
        account,
        case,
        limit,
    )
    return [(row["scope"], row["entity_hash"], row["verdicts"], row["others"]) for row in rows]


async def similar(conn: Connection, account: UUID, case: Case, limit: int) -> list[tuple[Case, int, int]]:
    """Reads other cases with what they share, entities and reasons; by reasons alone the latest hundred."""
    rows = await conn.fetch(
        """
        WITH mine AS (
            SELECT DISTINCT link.scope, link.entity_hash
            FROM verdict JOIN entity_link AS link ON link.account_id = $1 AND link.verdict_id = verdict.id
            WHERE verdict.account_id = $1 AND verdict.case_id = $2 LIMIT 50
        ),
        near AS (
            SELECT verdict.case_id AS id, count(DISTINCT (link.scope, link.entity_hash)) AS entities
            FROM mine
            JOIN entity_link AS link ON link.account_id = $1 AND link.scope = mine.scope
                AND link.entity_hash = mine.entity_hash
            JOIN verdict ON verdict.account_id = $1 AND verdict.id = link.verdict_id
            WHERE verdict.case_id <> $2 GROUP BY 1
        ),
        lately AS (
            SELECT id FROM review_case WHERE account_id = $1 AND id <> $2 AND reasons && $3::text[]
            ORDER BY opened_at DESC LIMIT 100
        )
        SELECT other.id, state, origin, severity, scope, entity_hash, reasons, detectors, confidence, audit_turn,
               appealed_at, claimed_by, claimed_until, judgement, judged_confidence, note, decided_by, decided_at,
               opened_at, updated_at, sequence, coalesce(near.entities, 0) AS shared_entities,
               (SELECT count(*) FROM unnest(other.reasons) AS reason WHERE reason = ANY($3::text[])) AS shared_reasons
        FROM review_case AS other LEFT JOIN near ON near.id = other.id
        WHERE other.account_id = $1 AND other.id IN (SELECT id FROM near UNION SELECT id FROM lately)
        ORDER BY shared_entities DESC, shared_reasons DESC, opened_at DESC LIMIT $4
        """,
        account,
        case.id,
        list(case.reasons),
        limit,
    )
    return [(_case(row), row["shared_entities"], row["shared_reasons"]) for row in rows]


async def counts(conn: Connection, account: UUID, since: datetime) -> dict[str, int]:
    """Counts an account's cases: open ones, and of those since a time the opened, judged and appealed."""
    row = await conn.fetchrow(
        """
        SELECT count(*) FILTER (WHERE state = 'open') AS open_cases,
               count(*) FILTER (WHERE opened_at >= $2) AS opened,
               count(*) FILTER (WHERE decided_at >= $2 AND judgement = 'abuse') AS abuse,
               count(*) FILTER (WHERE decided_at >= $2 AND judgement = 'legit') AS legit,
               count(*) FILTER (WHERE decided_at >= $2 AND judgement = 'unsure') AS unsure,
               count(*) FILTER (WHERE appealed_at >= $2) AS appeals,
               coalesce(percentile_disc(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM decided_at - opened_at))
                        FILTER (WHERE decided_at >= $2), 0)::bigint AS median_decision_seconds
        FROM review_case WHERE account_id = $1 AND (state = 'open' OR updated_at >= $2)
        """,
        account,
        since,
    )
    assert row is not None
    return dict(row)


def _case(row: Any) -> Case:
    return Case(
        id=row["id"],
        origin=Origin(row["origin"]),
        severity=row["severity"],
        scope=Scope(row["scope"]),
        entity=row["entity_hash"],
        reasons=tuple(row["reasons"]),
        detectors=tuple(row["detectors"]),
        confidence=row["confidence"],
        opened_at=row["opened_at"],
        updated_at=row["updated_at"],
        state=CaseState(row["state"]),
        audit_turn=row["audit_turn"],
        appealed_at=row["appealed_at"],
        claimed_by=row["claimed_by"],
        claimed_until=row["claimed_until"],
        judgement=Judgement(row["judgement"]) if row["judgement"] else None,
        judged_confidence=row["judged_confidence"],
        note=row["note"],
        decided_by=row["decided_by"],
        decided_at=row["decided_at"],
        sequence=row["sequence"],
    )
