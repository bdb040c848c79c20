"""Owns the statements on rules."""

from typing import Any
from uuid import UUID

from libs.postgres import Connection
from services.gateway.domain.bundle import Action, Mode, Rule
from services.gateway.domain.register import HeldRule

_COLUMNS = (
    "id, name, expression, action, parameter, priority, mode, expires_at, description, owner, created_at, changed_in"
)


async def all_rules(conn: Connection) -> tuple[HeldRule, ...]:
    """Reads all rules in the order in which they are looked at."""
    rows = await conn.fetch(f"SELECT {_COLUMNS} FROM rule ORDER BY priority, created_at, id")  # noqa: S608 — a constant
    return tuple(_rule(row) for row in rows)


async def find(conn: Connection, key: UUID) -> HeldRule | None:
    """Reads a rule."""
    row = await conn.fetchrow(f"SELECT {_COLUMNS} FROM rule WHERE id = $1", key)  # noqa: S608 — a constant
    return _rule(row) if row else None


async def put(conn: Connection, held: HeldRule) -> None:
    """Adds a rule, or replaces the one with its id; a name that is taken violates `rule_name_key`."""
    rule = held.rule
    await conn.execute(
        """
        INSERT INTO rule (id, name, expression, action, parameter, priority, mode, expires_at, description, owner,
            created_at, changed_in)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        ON CONFLICT (id) DO UPDATE SET name = excluded.name, expression = excluded.expression,
            action = excluded.action, parameter = excluded.parameter, priority = excluded.priority,
            mode = excluded.mode, expires_at = excluded.expires_at, description = excluded.description,
            owner = excluded.owner, changed_in = excluded.changed_in
        """,
        rule.id,
        rule.name,
        rule.expression,
        rule.action.value,
        rule.parameter,
        rule.priority,
        rule.mode.value,
        rule.expires_at,
        rule.description,
        held.owner,
        held.created_at,
        held.changed_in,
    )


async def remove(conn: Connection, key: UUID) -> str | None:
    """Removes a rule with its hits; returns its name."""
    name: str | None = await conn.fetchval("DELETE FROM rule WHERE id = $1 RETURNING name", key)
    return name


async def remove_others(conn: Connection, keys: list[UUID]) -> None:
    """Removes all rules but these."""
    await conn.execute("DELETE FROM rule WHERE NOT id = ANY($1::uuid[])", keys)


async def not_introduced(conn: Connection, keys: list[UUID]) -> set[UUID]:
    """Reads which of these were never added as coming with the software."""
    rows = await conn.fetch(
        """
        SELECT wanted.id FROM unnest($1::uuid[]) AS wanted (id)
        WHERE NOT EXISTS (SELECT FROM introduced_rule WHERE introduced_rule.id = wanted.id)
        """,
        keys,
    )
    return {row["id"] for row in rows}


async def note_introduced(conn: Connection, keys: list[UUID]) -> None:
    """Notes that these were added."""
    await conn.execute("INSERT INTO introduced_rule (id) SELECT unnest($1::uuid[])", keys)


def _rule(row: Any) -> HeldRule:
    rule = Rule(
        id=row["id"],
        name=row["name"],
        expression=row["expression"],
        action=Action(row["action"]),
        parameter=row["parameter"],
        priority=row["priority"],
        mode=Mode(row["mode"]),
        expires_at=row["expires_at"],
        description=row["description"],
    )
    return HeldRule(rule, row["owner"], row["created_at"], row["changed_in"])
