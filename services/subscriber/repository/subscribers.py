"""Owns the statements on readers."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from libs import errors
from libs.postgres import Connection, violated
from services.subscriber.repository.sealing import SealedProfile


async def find(conn: Connection, account: UUID, subject: UUID) -> SealedProfile | None:
    """Returns a reader."""
    row = await conn.fetchrow(
        """
        SELECT subject_id, sequence, email_sealed, name_sealed, note_sealed, metadata_sealed, subscribed_to_emails,
               complimentary, labels, external_id, source, created_at
        FROM subscriber WHERE account_id = $1 AND subject_id = $2
        """,
        account,
        subject,
    )
    return None if row is None else _profile(row)


async def lock(conn: Connection, account: UUID, subject: UUID) -> SealedProfile | None:
    """Returns a reader, whom no one else changes until the transaction ends."""
    row = await conn.fetchrow(
        """
        SELECT subject_id, sequence, email_sealed, name_sealed, note_sealed, metadata_sealed, subscribed_to_emails,
               complimentary, labels, external_id, source, created_at
        FROM subscriber WHERE account_id = $1 AND subject_id = $2 FOR UPDATE
        """,
        account,
        subject,
    )
    return None if row is None else _profile(row)


async def find_by_email(conn: Connection, account: UUID, email_index: bytes) -> SealedProfile | None:
    """Returns the reader with an address, by its blind index."""
    return (await find_by_emails(conn, account, [email_index])).get(email_index)


async def find_by_emails(conn: Connection, account: UUID, email_indexes: Sequence[bytes]) -> dict[bytes, SealedProfile]:
    """Returns the readers with these addresses, by blind index."""
    rows = await conn.fetch(
        """
        SELECT subject_id, sequence, email_sealed, name_sealed, note_sealed, metadata_sealed, subscribed_to_emails,
               complimentary, labels, external_id, source, created_at, email_index
        FROM subscriber WHERE account_id = $1 AND email_index = ANY($2::bytea[])
        """,
        account,
        list(email_indexes),
    )
    return {row["email_index"]: _profile(row) for row in rows}


async def page(conn: Connection, account: UUID, after: tuple[datetime, UUID] | None, limit: int) -> list[SealedProfile]:
    """Returns readers by falling (created_at, subject_id), which never change: no row comes twice or is left out."""
    if after is None:
        rows = await conn.fetch(
            """
            SELECT subject_id, sequence, email_sealed, name_sealed, note_sealed, metadata_sealed, subscribed_to_emails,
                   complimentary, labels, external_id, source, created_at
            FROM subscriber WHERE account_id = $1
            ORDER BY created_at DESC, subject_id DESC LIMIT $2
            """,
            account,
            limit,
        )
    else:
        rows = await conn.fetch(
            """
            SELECT subject_id, sequence, email_sealed, name_sealed, note_sealed, metadata_sealed, subscribed_to_emails,
                   complimentary, labels, external_id, source, created_at
            FROM subscriber WHERE account_id = $1 AND (created_at, subject_id) < ($2, $3)
            ORDER BY created_at DESC, subject_id DESC LIMIT $4
            """,
            account,
            *after,
            limit,
        )
    return [_profile(row) for row in rows]


async def insert(
    conn: Connection, account: UUID, rows: Sequence[tuple[SealedProfile, bytes]], at: datetime
) -> set[UUID]:
    """Adds readers, each with their blind index, in one statement; returns whose address was free.

    Raises `conflict("external_id_taken")` and `conflict("subject_taken")`.
    """
    profiles = [profile for profile, _ in rows]
    try:
        added = await conn.fetch(
            """
            INSERT INTO subscriber (
                account_id, subject_id, sequence, email_index, email_sealed, name_sealed, note_sealed, metadata_sealed,
                subscribed_to_emails, complimentary, labels, external_id, source, created_at, updated_at)
            SELECT $1, new.subject_id, new.sequence, new.email_index, new.email_sealed, new.name_sealed,
                   new.note_sealed, new.metadata_sealed, new.subscribed_to_emails, new.complimentary,
                   ARRAY(SELECT jsonb_array_elements_text(new.labels::jsonb)), new.external_id, new.source,
                   new.created_at, $14
            FROM unnest($2::uuid[], $3::bigint[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[], $8::bytea[],
                        $9::boolean[], $10::boolean[], $11::text[], $12::text[], $13::text[], $15::timestamptz[])
              AS new (subject_id, sequence, email_index, email_sealed, name_sealed, note_sealed, metadata_sealed,
                      subscribed_to_emails, complimentary, labels, external_id, source, created_at)
            ON CONFLICT (account_id, email_index) DO NOTHING
            RETURNING subject_id
            """,
            account,
            [profile.subject_id for profile in profiles],
            [profile.sequence for profile in profiles],
            [index for _, index in rows],
            *_columns(profiles),
            [profile.external_id for profile in profiles],
            [profile.source for profile in profiles],
            at,
            [profile.created_at for profile in profiles],
        )
    except Exception as error:
        match violated(error):
            case "subscriber_external_id_unique":
                raise errors.conflict("external_id_taken", "Another reader has this external_id.") from error
            case "subscriber_pkey":
                raise errors.conflict(
                    "subject_taken", "The subject belongs to a reader with another address."
                ) from error
        raise
    return {row["subject_id"] for row in added}


async def move(conn: Connection, account: UUID, subject: UUID, email_index: bytes) -> None:
    """Finds a reader by another address from now on; breaks `subscriber_email_unique` when it is another's."""
    await conn.execute(
        "UPDATE subscriber SET email_index = $3 WHERE account_id = $1 AND subject_id = $2",
        account,
        subject,
        email_index,
    )


async def update(conn: Connection, account: UUID, rows: Sequence[SealedProfile], at: datetime) -> set[UUID]:
    """Changes readers in one statement; returns those whose sequence was the one before the row's."""
    changed = await conn.fetch(
        """
        UPDATE subscriber SET
            sequence = new.sequence, email_sealed = new.email_sealed, name_sealed = new.name_sealed,
            note_sealed = new.note_sealed, metadata_sealed = new.metadata_sealed,
            subscribed_to_emails = new.subscribed_to_emails, complimentary = new.complimentary,
            labels = ARRAY(SELECT jsonb_array_elements_text(new.labels::jsonb)), updated_at = $11
        FROM unnest($2::uuid[], $3::bigint[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[], $8::boolean[],
                    $9::boolean[], $10::text[])
          AS new (subject_id, sequence, email_sealed, name_sealed, note_sealed, metadata_sealed,
                  subscribed_to_emails, complimentary, labels)
        WHERE subscriber.account_id = $1 AND subscriber.subject_id = new.subject_id
          AND subscriber.sequence = new.sequence - 1
        RETURNING subscriber.subject_id
        """,
        account,
        [row.subject_id for row in rows],
        [row.sequence for row in rows],
        *_columns(rows),
        at,
    )
    return {row["subject_id"] for row in changed}


def _columns(profiles: Sequence[SealedProfile]) -> list[list[Any]]:
    """Returns the columns that both adding and changing write. Labels travel as JSON: unnest would flatten arrays."""
    return [
        [profile.email_sealed for profile in profiles],
        [profile.name_sealed for profile in profiles],
        [profile.note_sealed for profile in profiles],
        [profile.metadata_sealed for profile in profiles],
        [profile.subscribed_to_emails for profile in profiles],
        [profile.complimentary for profile in profiles],
        [orjson.dumps(profile.labels).decode() for profile in profiles],
    ]


def _profile(row: Any) -> SealedProfile:
    return SealedProfile(
        subject_id=row["subject_id"],
        sequence=row["sequence"],
        email_sealed=row["email_sealed"],
        name_sealed=row["name_sealed"],
        note_sealed=row["note_sealed"],
        metadata_sealed=row["metadata_sealed"],
        subscribed_to_emails=row["subscribed_to_emails"],
        complimentary=row["complimentary"],
        labels=tuple(row["labels"]),
        external_id=row["external_id"],
        source=row["source"],
        created_at=row["created_at"],
    )
