"""Owns the statements on verdicts, what was seen with them, and the requests that they refused."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.abuse.domain.detector import Action
from services.abuse.domain.finding import Measure, Scope
from services.abuse.domain.verdict import REVIEW, State, Verdict

_COLUMNS = (
    "id, decision_key, detector, scope, entity_hash, action, state, shadow, reasons, confidence, evidence,"
    " rule_version, strikes, request_id, case_id, appealed_at, revision, decided_at, expires_at"
)


async def add(conn: Connection, account: UUID, verdicts: Sequence[Verdict]) -> set[UUID]:
    """Adds verdicts; returns which are new. One that was decided before, by whoever read the events, is left alone."""
    rows = await conn.fetch(
        """
        INSERT INTO verdict (account_id, id, decision_key, detector, scope, entity_hash, action, shadow, reasons,
                             confidence, evidence, rule_version, strikes, request_id, case_id, decided_at, expires_at)
        SELECT $1, new.id, new.key, new.detector, new.scope, new.entity, new.action, new.shadow,
               ARRAY(SELECT jsonb_array_elements_text(new.reasons)), new.confidence, new.evidence, new.rule_version,
               new.strikes, new.request_id, new.case_id, new.decided_at, new.expires_at
        FROM unnest($2::uuid[], $3::bytea[], $4::text[], $5::text[], $6::bytea[], $7::text[], $8::boolean[],
                    $9::jsonb[], $10::float8[], $11::jsonb[], $12::text[], $13::int[], $14::text[], $15::uuid[],
                    $16::timestamptz[], $17::timestamptz[])
            AS new (id, key, detector, scope, entity, action, shadow, reasons, confidence, evidence, rule_version,
                    strikes, request_id, case_id, decided_at, expires_at)
        ON CONFLICT (account_id, decision_key) DO NOTHING
        RETURNING id
        """,
        account,
        [verdict.id for verdict in verdicts],
        [verdict.key for verdict in verdicts],
        [verdict.detector for verdict in verdicts],
        [verdict.scope.value for verdict in verdicts],
        [verdict.entity for verdict in verdicts],
        [verdict.action.name.lower() for verdict in verdicts],
        [verdict.shadow for verdict in verdicts],
        [json.dumps(verdict.reasons) for verdict in verdicts],
        [verdict.confidence for verdict in verdicts],
        [_evidence(verdict.evidence) for verdict in verdicts],
        [verdict.rule_version for verdict in verdicts],
        [verdict.strikes for verdict in verdicts],
        [verdict.request_id for verdict in verdicts],
        [verdict.case for verdict in verdicts],
        [verdict.decided_at for verdict in verdicts],
        [verdict.expires_at for verdict in verdicts],
    )
    return {row["id"] for row in rows}


async def supersede(conn: Connection, account: UUID, by: Sequence[Verdict]) -> int:
    """Ends what the judge said earlier about the same entities; what people decided stays. Returns how many."""
    rows = await conn.fetch(
        """
        UPDATE verdict SET state = 'superseded', revision = revision + 1
        FROM unnest($2::uuid[], $3::text[], $4::bytea[], $5::boolean[], $6::timestamptz[], $8::text[])
            AS new (id, scope, entity, shadow, decided_at, action)
        WHERE verdict.account_id = $1 AND verdict.state = 'active' AND verdict.scope = new.scope
            AND verdict.entity_hash = new.entity AND verdict.shadow = new.shadow AND verdict.detector <> $7
            AND verdict.id <> new.id
            AND (verdict.decided_at, array_position($9::text[], verdict.action))
                < (new.decided_at, array_position($9::text[], new.action))
        RETURNING verdict.id
        """,
        account,
        [verdict.id for verdict in by],
        [verdict.scope.value for verdict in by],
        [verdict.entity for verdict in by],
        [verdict.shadow for verdict in by],
        [verdict.decided_at for verdict in by],
        REVIEW,
        [verdict.action.name.lower() for verdict in by],
        [action.name.lower() for action in sorted(Action)],
    )
    return len(rows)


async def link(conn: Connection, account: UUID, seen: Mapping[UUID, Mapping[Scope, bytes]]) -> None:
    """Notes which entities were seen together with which verdicts'."""
    links = [(verdict, scope.value, held) for verdict, found in seen.items() for scope, held in found.items()]
    await conn.execute(
        """
        INSERT INTO entity_link (account_id, verdict_id, scope, entity_hash)
        SELECT $1, new.verdict, new.scope, new.entity
        FROM unnest($2::uuid[], $3::text[], $4::bytea[]) AS new (verdict, scope, entity)
        ON CONFLICT DO NOTHING
        """,
        account,
        [verdict for verdict, _, _ in links],
        [scope for _, scope, _ in links],
        [held for _, _, held in links],
    )


async def attach(conn: Connection, account: UUID, verdicts: Sequence[UUID], case: UUID) -> None:
    """Puts verdicts into a case."""
    await conn.execute(
        "UPDATE verdict SET case_id = $3 WHERE account_id = $1 AND id = ANY($2::uuid[])", account, verdicts, case
    )


async def of_case(conn: Connection, account: UUID, case: UUID, limit: int) -> list[Verdict]:
    """Reads a case's verdicts, the latest first."""
    rows = await conn.fetch(
        f"SELECT {_COLUMNS} FROM verdict WHERE account_id = $1 AND case_id = $2 ORDER BY decided_at DESC LIMIT $3",  # noqa: S608 — a constant
        account,
        case,
        limit,
    )
    return [_verdict(row) for row in rows]


async def find(conn: Connection, account: UUID, verdict: UUID) -> Verdict | None:
    """Reads one verdict and keeps it from changing."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM verdict WHERE account_id = $1 AND id = $2 FOR UPDATE",  # noqa: S608 — a constant
        account,
        verdict,
    )
    return _verdict(row) if row else None


async def in_force(conn: Connection, account: UUID, scope: Scope, entity: bytes) -> list[Verdict]:
    """Reads what is done about an entity, and keeps it from changing."""
    rows = await conn.fetch(
        f"SELECT {_COLUMNS} FROM verdict WHERE account_id = $1 AND scope = $2 AND entity_hash = $3"  # noqa: S608 — a constant
        " AND state = 'active' ORDER BY id FOR UPDATE",
        account,
        scope.value,
        entity,
    )
    return [_verdict(row) for row in rows]


async def change(
    conn: Connection, account: UUID, verdicts: Sequence[UUID], state: State, expiries: Sequence[datetime]
) -> None:
    """Gives verdicts a state and each its end; whoever acts on them is told."""
    await conn.execute(
        """
        UPDATE verdict SET state = $4, expires_at = new.expires_at, revision = revision + 1
        FROM unnest($2::uuid[], $3::timestamptz[]) AS new (id, expires_at)
        WHERE verdict.account_id = $1 AND verdict.id = new.id
        """,
        account,
        verdicts,
        expiries,
        state.value,
    )


async def note_appeal(conn: Connection, account: UUID, verdict: UUID, at: datetime) -> None:
    """Notes that somebody appealed against a verdict."""
    await conn.execute("UPDATE verdict SET appealed_at = $3 WHERE account_id = $1 AND id = $2", account, verdict, at)


async def count_by_family(conn: Connection, account: UUID, since: datetime) -> list[tuple[str, int, int]]:
    """Counts verdicts since a time by family: those acted on, and those only noted."""
    rows = await conn.fetch(
        """
        SELECT coalesce(reasons[1], '') AS family, count(*) FILTER (WHERE NOT shadow) AS enforced,
               count(*) FILTER (WHERE shadow) AS shadow
        FROM verdict WHERE account_id = $1 AND decided_at >= $2 GROUP BY 1 ORDER BY 1
        """,
        account,
        since,
    )
    return [(row["family"], row["enforced"], row["shadow"]) for row in rows]


async def hits(conn: Connection, since: datetime) -> dict[str, int]:
    """Counts all accounts' verdicts since a time by detector; for the jobs role."""
    rows = await conn.fetch(
        "SELECT detector, count(*) AS hits FROM verdict WHERE decided_at >= $1 GROUP BY detector", since
    )
    return {row["detector"]: row["hits"] for row in rows}


async def changed_after(
    conn: Connection, place: tuple[int, int], now: datetime, limit: int
) -> list[tuple[UUID, Verdict, tuple[int, int]]]:
    """Reads changes after a place with theirs, as the verdicts are now; for the jobs role.

    In the order of transactions, and only of those older than every running one: nothing appears later before them.
    """
    rows = await conn.fetch(
        """
        SELECT verdict_change.xid::text AS xid, verdict_change.position, verdict.account_id, verdict.id, decision_key,
               detector, scope, entity_hash, action, state, shadow, reasons, confidence, evidence, rule_version,
               strikes, request_id, case_id, appealed_at, revision, decided_at, expires_at
        FROM verdict_change
        JOIN verdict ON verdict.account_id = verdict_change.account_id AND verdict.id = verdict_change.verdict_id
        WHERE (verdict_change.xid, position) > ($1::text::xid8, $2::bigint)
            AND verdict_change.xid < pg_snapshot_xmin(pg_current_snapshot()) AND until > $3
        ORDER BY verdict_change.xid, position LIMIT $4
        """,
        str(place[0]),
        place[1],
        now,
        limit,
    )
    return [(row["account_id"], _verdict(row), (int(row["xid"]), row["position"])) for row in rows]


async def newest_transaction(conn: Connection) -> int:
    """Reads the number that the next transaction gets: a place beyond it belongs to another cluster's history."""
    return int(await conn.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"))


async def untold(conn: Connection, limit: int) -> list[tuple[int, UUID, Verdict]]:
    """Reads changes that nobody was told of, oldest first; for the jobs role."""
    rows = await conn.fetch(
        """
        SELECT position, verdict.account_id, verdict.id, decision_key, detector, scope, entity_hash, action, state,
               shadow, reasons, confidence, evidence, rule_version, strikes, request_id, case_id, appealed_at, revision,
               decided_at, expires_at
        FROM verdict_change
        JOIN verdict ON verdict.account_id = verdict_change.account_id AND verdict.id = verdict_change.verdict_id
        WHERE published_at IS NULL ORDER BY position LIMIT $1
        """,
        limit,
    )
    return [(row["position"], row["account_id"], _verdict(row)) for row in rows]


async def told(conn: Connection, positions: Sequence[int], at: datetime) -> None:
    """Notes that everybody was told."""
    await conn.execute("UPDATE verdict_change SET published_at = $2 WHERE position = ANY($1::bigint[])", positions, at)


async def expire(conn: Connection, now: datetime, limit: int) -> int:
    """Ends verdicts whose time is over, of all accounts; for the jobs role. Returns how many."""
    rows = await conn.fetch(
        """
        UPDATE verdict SET state = 'expired', revision = revision + 1
        WHERE (account_id, id) IN (
            SELECT account_id, id FROM verdict WHERE state = 'active' AND expires_at <= $1
            ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)
        RETURNING id
        """,
        now,
        limit,
    )
    return len(rows)


async def add_refused(conn: Connection, refused: Mapping[UUID, tuple[UUID, UUID]], until: datetime) -> None:
    """Notes which verdict, of which account, refused a request."""
    await conn.execute(
        """
        INSERT INTO refused_request (request_key, account_id, verdict_id, until)
        SELECT new.key, new.account_id, new.verdict_id, $4
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS new (key, account_id, verdict_id)
        ON CONFLICT (request_key) DO NOTHING
        """,
        list(refused),
        [account for account, _ in refused.values()],
        [verdict for _, verdict in refused.values()],
        until,
    )


async def owners(conn: Connection, wanted: Sequence[UUID]) -> dict[UUID, UUID]:
    """Reads the accounts of verdicts; for the jobs role."""
    rows = await conn.fetch("SELECT id, account_id FROM verdict WHERE id = ANY($1::uuid[])", wanted)
    return {row["id"]: row["account_id"] for row in rows}


async def refusing(conn: Connection, request_key: UUID, now: datetime) -> tuple[UUID, UUID] | None:
    """Reads the account and the verdict that refused a request."""
    row = await conn.fetchrow(
        "SELECT account_id, verdict_id FROM refused_request WHERE request_key = $1 AND until > $2", request_key, now
    )
    return (row["account_id"], row["verdict_id"]) if row else None


def _evidence(evidence: Mapping[str, Measure]) -> str:
    return json.dumps({name: [kept.value, kept.threshold, kept.weight] for name, kept in evidence.items()})


def _verdict(row: Any) -> Verdict:
    evidence = {name: Measure(*kept) for name, kept in json.loads(row["evidence"]).items()}
    return Verdict(
        id=row["id"],
        key=row["decision_key"],
        detector=row["detector"],
        scope=Scope(row["scope"]),
        entity=row["entity_hash"],
        action=Action[row["action"].upper()],
        shadow=row["shadow"],
        reasons=tuple(row["reasons"]),
        confidence=row["confidence"],
        evidence=evidence,
        rule_version=row["rule_version"],
        strikes=row["strikes"],
        request_id=row["request_id"],
        decided_at=row["decided_at"],
        expires_at=row["expires_at"],
        state=State(row["state"]),
        revision=row["revision"],
        case=row["case_id"],
        appealed=row["appealed_at"] is not None,
    )
