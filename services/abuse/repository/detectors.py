"""Owns the statements on detectors: what operators changed, what people said of them, where they are demoted."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from libs.postgres import Connection
from services.abuse.domain.detector import Mode
from services.abuse.domain.precision import Precision

Steps = Mapping[str, Sequence[Sequence[float]]]
"""Thresholds and log-odds by signal."""


@dataclass(frozen=True)
class Setting:
    """How operators want a detector, since when, and the how manieth change that is."""

    detector: str
    revision: int
    mode: Mode
    steps: Steps
    changed_by: str
    changed_at: datetime


async def settings(conn: Connection) -> dict[str, Setting]:
    """Reads the latest setting of each detector that was ever changed."""
    rows = await conn.fetch(
        """
        SELECT DISTINCT ON (detector) detector, revision, mode, steps, changed_by, changed_at FROM detector_setting
        ORDER BY detector, revision DESC
        """
    )
    return {
        row["detector"]: Setting(
            row["detector"],
            row["revision"],
            Mode(row["mode"]),
            json.loads(row["steps"]),
            row["changed_by"],
            row["changed_at"],
        )
        for row in rows
    }


async def add_setting(conn: Connection, setting: Setting) -> bool:
    """Adds a change; returns False when another one has its revision."""
    added = await conn.fetchval(
        """
        INSERT INTO detector_setting (detector, revision, mode, steps, changed_by, changed_at)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (detector, revision) DO NOTHING RETURNING true
        """,
        setting.detector,
        setting.revision,
        setting.mode.value,
        json.dumps(setting.steps),
        setting.changed_by,
        setting.changed_at,
    )
    return bool(added)


async def label(
    conn: Connection, account: UUID, case: UUID, detectors: Sequence[str], abuse: bool | None, at: datetime
) -> None:
    """Writes what people say of detectors' verdicts in a case; None takes back what they said."""
    if abuse is None:
        await conn.execute("DELETE FROM detector_label WHERE account_id = $1 AND case_id = $2", account, case)
        return
    await conn.execute(
        """
        INSERT INTO detector_label (account_id, detector, case_id, abuse, labelled_at)
        SELECT $1, detector, $2, $4, $5 FROM unnest($3::text[]) AS detector
        ON CONFLICT (account_id, detector, case_id) DO UPDATE
        SET abuse = excluded.abuse, labelled_at = excluded.labelled_at
        """,
        account,
        case,
        list(detectors),
        abuse,
        at,
    )


async def precision_here(conn: Connection, account: UUID, since: Mapping[str, datetime]) -> dict[str, Precision]:
    """Counts an account's labels of each detector; of one that is named in `since` only the later ones."""
    rows = await conn.fetch(
        """
        SELECT label.detector, count(*) FILTER (WHERE abuse) AS abuse, count(*) FILTER (WHERE NOT abuse) AS legit
        FROM detector_label AS label
        LEFT JOIN unnest($2::text[], $3::timestamptz[]) AS changed (detector, at) ON changed.detector = label.detector
        WHERE label.account_id = $1 AND (changed.at IS NULL OR labelled_at >= changed.at) GROUP BY label.detector
        """,
        account,
        list(since),
        list(since.values()),
    )
    return {row["detector"]: Precision(row["abuse"], row["legit"]) for row in rows}


async def precision_everywhere(conn: Connection, since: Mapping[str, datetime]) -> dict[str, Precision]:
    """Counts all accounts' labels of each detector, as `precision_here`; for the jobs role."""
    rows = await conn.fetch(
        """
        SELECT label.detector, count(*) FILTER (WHERE abuse) AS abuse, count(*) FILTER (WHERE NOT abuse) AS legit
        FROM detector_label AS label
        LEFT JOIN unnest($1::text[], $2::timestamptz[]) AS changed (detector, at) ON changed.detector = label.detector
        WHERE changed.at IS NULL OR labelled_at >= changed.at GROUP BY label.detector
        """,
        list(since),
        list(since.values()),
    )
    return {row["detector"]: Precision(row["abuse"], row["legit"]) for row in rows}


async def demote(conn: Connection, account: UUID, detector: str, at: datetime) -> bool:
    """Demotes a detector in an account; returns whether that is new."""
    added = await conn.fetchval(
        "INSERT INTO detector_demotion (account_id, detector, since) VALUES ($1, $2, $3)"
        " ON CONFLICT DO NOTHING RETURNING true",
        account,
        detector,
        at,
    )
    return bool(added)


async def demoted(conn: Connection, account: UUID) -> set[str]:
    """Reads which detectors are demoted in an account."""
    rows = await conn.fetch("SELECT detector FROM detector_demotion WHERE account_id = $1", account)
    return {row["detector"] for row in rows}


async def demotions(conn: Connection) -> dict[str, int]:
    """Counts in how many accounts each detector is demoted; for the jobs role."""
    rows = await conn.fetch("SELECT detector, count(*) AS accounts FROM detector_demotion GROUP BY detector")
    return {row["detector"]: row["accounts"] for row in rows}


async def restore(conn: Connection, detector: str) -> None:
    """Ends a detector's demotions in all accounts: it was changed; for the jobs role."""
    await conn.execute("DELETE FROM detector_demotion WHERE detector = $1", detector)
