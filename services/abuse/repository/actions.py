"""Owns the statements on what was done about cases."""

from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.abuse.domain.case import ActionKind, ActionState, CaseAction

_COLUMNS = (
    "id, case_id, kind, state, seconds, four_eyes, requested_by, requested_at, approved_by, approved_at, verdicts,"
    " former_expiries"
)


async def add(conn: Connection, account: UUID, action: CaseAction) -> None:
    """Adds an action."""
    await conn.execute(
        """
        INSERT INTO case_action (account_id, id, case_id, kind, state, seconds, four_eyes, requested_by, requested_at,
                                 verdicts, former_expiries)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        """,
        account,
        action.id,
        action.case,
        action.kind.value,
        action.state.value,
        action.seconds,
        action.four_eyes,
        action.requested_by,
        action.requested_at,
        list(action.verdicts),
        list(action.former_expiries),
    )


async def save(conn: Connection, account: UUID, action: CaseAction) -> None:
    """Writes what can change of an action."""
    await conn.execute(
        """
        UPDATE case_action
        SET state = $3, approved_by = $4, approved_at = $5, verdicts = $6, former_expiries = $7
        WHERE account_id = $1 AND id = $2
        """,
        account,
        action.id,
        action.state.value,
        action.approved_by,
        action.approved_at,
        list(action.verdicts),
        list(action.former_expiries),
    )


async def find(conn: Connection, account: UUID, case: UUID, action: UUID) -> CaseAction | None:
    """Reads an action of a case."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM case_action WHERE account_id = $1 AND case_id = $2 AND id = $3",  # noqa: S608 — a constant
        account,
        case,
        action,
    )
    return _action(row) if row else None


async def waiting(conn: Connection, account: UUID, case: UUID, kind: ActionKind) -> CaseAction | None:
    """Reads an action of a kind that waits for a second person."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM case_action WHERE account_id = $1 AND case_id = $2 AND kind = $3"  # noqa: S608 — a constant
        " AND state = 'waiting'",
        account,
        case,
        kind.value,
    )
    return _action(row) if row else None


async def of_case(conn: Connection, account: UUID, case: UUID, limit: int) -> list[CaseAction]:
    """Reads a case's latest actions, the latest first."""
    rows = await conn.fetch(
        f"SELECT {_COLUMNS} FROM case_action WHERE account_id = $1 AND case_id = $2 ORDER BY id DESC LIMIT $3",  # noqa: S608 — a constant
        account,
        case,
        limit,
    )
    return [_action(row) for row in rows]


def _action(row: Any) -> CaseAction:
    return CaseAction(
        id=row["id"],
        case=row["case_id"],
        kind=ActionKind(row["kind"]),
        state=ActionState(row["state"]),
        seconds=row["seconds"],
        four_eyes=row["four_eyes"],
        requested_by=row["requested_by"],
        requested_at=row["requested_at"],
        approved_by=row["approved_by"],
        approved_at=row["approved_at"],
        verdicts=tuple(row["verdicts"]),
        former_expiries=tuple(row["former_expiries"]),
    )
