"""Owns the statements on persons, their memberships, and the accounts they may sign in to."""

from datetime import datetime
from typing import Any
from uuid import UUID

from libs.postgres import PLATFORM, Connection
from services.auth.domain.password import StoredPassword
from services.auth.domain.team import Membership, Person


async def add(conn: Connection, person: Person, email_index: bytes, created_at: datetime) -> None:
    """Adds a person; breaks the constraint `person_email` when the address is known."""
    await conn.execute(
        """
        INSERT INTO person (id, email_index, email_sealed, name_sealed, password_scheme, password_params,
            password_pepper_id, password_hash, operator, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        person.id,
        email_index,
        person.email_sealed,
        person.name_sealed,
        person.password.scheme,
        person.password.params,
        person.password.pepper_id,
        person.password.hash,
        person.operator,
        created_at,
    )


async def find_by_email(conn: Connection, email_index: bytes) -> Person | None:
    """Reads the person with an address."""
    row = await conn.fetchrow(
        """
        SELECT id, email_sealed, name_sealed, password_scheme, password_params, password_pepper_id, password_hash,
            operator, password_must_change, password_version
        FROM person WHERE email_index = $1
        """,
        email_index,
    )
    return _person(row) if row else None


async def index_of(conn: Connection, person: UUID) -> bytes | None:
    """Reads the look-up value of a person's address."""
    index: bytes | None = await conn.fetchval("SELECT email_index FROM person WHERE id = $1", person)
    return index


async def find_many(conn: Connection, persons: list[UUID]) -> list[Person]:
    """Reads persons."""
    rows = await conn.fetch(
        """
        SELECT id, email_sealed, name_sealed, password_scheme, password_params, password_pepper_id, password_hash,
            operator, password_must_change, password_version
        FROM person WHERE id = ANY($1::uuid[])
        """,
        persons,
    )
    return [_person(row) for row in rows]


async def make_operator(conn: Connection, person: UUID) -> None:
    """Lets a person operate the platform."""
    await conn.execute("UPDATE person SET operator = true WHERE id = $1", person)


async def is_operator(conn: Connection, person: UUID) -> bool:
    """Tells whether a person operates the platform."""
    return bool(await conn.fetchval("SELECT operator FROM person WHERE id = $1", person))


async def password_version(conn: Connection, person: UUID) -> int:
    """Reads how many passwords a person has had; 0 of one who is gone."""
    return await conn.fetchval("SELECT password_version FROM person WHERE id = $1", person) or 0


async def hold_password(conn: Connection, person: UUID, version: int) -> bool:
    """Keeps a password from changing until the transaction ends; answers False when it was changed already."""
    row = await conn.fetchrow(
        "SELECT id FROM person WHERE id = $1 AND password_version = $2 FOR NO KEY UPDATE", person, version
    )
    return row is not None


async def replace_password(conn: Connection, person: UUID, new: StoredPassword) -> None:
    """Stores the same password hashed anew, in a transaction that holds it."""
    await conn.execute(
        """
        UPDATE person SET password_scheme = $2, password_params = $3, password_pepper_id = $4, password_hash = $5
        WHERE id = $1
        """,
        person,
        new.scheme,
        new.params,
        new.pepper_id,
        new.hash,
    )


async def demand_change(conn: Connection, person: UUID) -> bool:
    """Has the password changed before the next session begins; answers True to the first who says so."""
    row = await conn.fetchrow(
        "UPDATE person SET password_must_change = true WHERE id = $1 AND NOT password_must_change RETURNING id", person
    )
    return row is not None


async def change_password(conn: Connection, person: UUID, old: StoredPassword, new: StoredPassword) -> bool:
    """Stores another password; answers False when the old one was changed in the meantime."""
    row = await conn.fetchrow(
        """
        UPDATE person SET password_scheme = $3, password_params = $4, password_pepper_id = $5, password_hash = $6,
            password_version = password_version + 1, password_must_change = false
        WHERE id = $1 AND password_hash = $2 RETURNING id
        """,
        person,
        old.hash,
        new.scheme,
        new.params,
        new.pepper_id,
        new.hash,
    )
    return row is not None


async def set_password(conn: Connection, person: UUID, email_index: bytes, password: StoredPassword) -> bool:
    """Stores a new password of the person who has the address; answers False when it is theirs no more."""
    row = await conn.fetchrow(
        """
        UPDATE person SET password_scheme = $3, password_params = $4, password_pepper_id = $5, password_hash = $6,
            password_version = password_version + 1, password_must_change = false
        WHERE id = $1 AND email_index = $2 RETURNING id
        """,
        person,
        email_index,
        password.scheme,
        password.params,
        password.pepper_id,
        password.hash,
    )
    return row is not None


async def change_address(
    conn: Connection, person: UUID, former_sealed: bytes, email_index: bytes, email_sealed: bytes
) -> bool:
    """Gives a person another address; answers False when they had another than the former one.

    Breaks `person_email` when the address is another person's.
    """
    row = await conn.fetchrow(
        "UPDATE person SET email_index = $3, email_sealed = $4 WHERE id = $1 AND email_sealed = $2 RETURNING id",
        person,
        former_sealed,
        email_index,
        email_sealed,
    )
    return row is not None


async def move_membership(conn: Connection, account: UUID, person: UUID, email_index: bytes) -> None:
    """Finds a member by another address from now on; breaks `membership_email` when it is another member's."""
    # Asked for now, while the transaction sees this account's team: it may end as another's.
    await conn.execute("SET CONSTRAINTS membership_last_owner IMMEDIATE")
    await conn.execute(
        "UPDATE membership SET email_index = $3 WHERE account_id = $1 AND person_id = $2", account, person, email_index
    )


async def accounts_of(conn: Connection, person: UUID) -> list[UUID]:
    """Reads the live accounts a person may sign in to."""
    rows = await conn.fetch(
        "SELECT account_id FROM staff_route WHERE person_id = $1 AND NOT closed ORDER BY account_id", person
    )
    return [row["account_id"] for row in rows]


async def teams_of(conn: Connection, person: UUID) -> list[UUID]:
    """Reads the live accounts whose member a person is, also where they are kept out."""
    rows = await conn.fetch("SELECT account_id FROM staff_route WHERE person_id = $1 ORDER BY account_id", person)
    return [row["account_id"] for row in rows]


async def session_accounts_of(conn: Connection, person: UUID) -> list[UUID]:
    """Reads every account in which a person may have sessions: live ones, their test siblings, and the platform."""
    rows = await conn.fetch(
        """
        SELECT unnest(ARRAY[account.id, account.sibling_id]) AS account_id
        FROM staff_route JOIN account ON account.id = staff_route.account_id WHERE person_id = $1
        """,
        person,
    )
    return [PLATFORM, *(row["account_id"] for row in rows)]


async def invite(conn: Connection, account: UUID, membership: Membership, email_index: bytes) -> Membership | None:
    """Adds an invited member, or gives an open invitation of the address its new role; None when it was accepted.

    The first invitation's identifier stays, and with it the key that seals the address.
    """
    row = await conn.fetchrow(
        """
        INSERT INTO membership (account_id, id, role, email_index, email_sealed, invited_at)
        VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT ON CONSTRAINT membership_email DO UPDATE SET role = excluded.role, invited_at = excluded.invited_at
            WHERE membership.person_id IS NULL
        RETURNING id, role, person_id, email_sealed, invited_at, accepted_at, sequence
        """,
        account,
        membership.id,
        membership.role,
        email_index,
        membership.email_sealed,
        membership.invited_at,
    )
    return _membership(row) if row else None


async def invited(conn: Connection, account: UUID, email_index: bytes) -> Membership | None:
    """Reads the member with an address, invited or accepted."""
    row = await conn.fetchrow(
        """
        SELECT id, role, person_id, email_sealed, invited_at, accepted_at, sequence
        FROM membership WHERE account_id = $1 AND email_index = $2
        """,
        account,
        email_index,
    )
    return _membership(row) if row else None


async def find_membership(conn: Connection, account: UUID, membership: UUID) -> Membership | None:
    """Reads a member."""
    row = await conn.fetchrow(
        """
        SELECT id, role, person_id, email_sealed, invited_at, accepted_at, sequence
        FROM membership WHERE account_id = $1 AND id = $2
        """,
        account,
        membership,
    )
    return _membership(row) if row else None


async def lock_membership(
    conn: Connection, account: UUID, *, membership: UUID | None = None, person: UUID | None = None
) -> Membership | None:
    """Reads a member, by identifier or by person, and keeps it from changing until the transaction ends."""
    row = await conn.fetchrow(
        """
        SELECT id, role, person_id, email_sealed, invited_at, accepted_at, sequence
        FROM membership WHERE account_id = $1 AND (id = $2 OR person_id = $3) FOR UPDATE
        """,
        account,
        membership,
        person,
    )
    return _membership(row) if row else None


async def set_role(conn: Connection, account: UUID, membership: UUID, role: str) -> Membership:
    """Gives a member a role; breaks `membership_last_owner` at the end when nobody is an owner any more."""
    row = await conn.fetchrow(
        """
        UPDATE membership SET role = $3, sequence = sequence + 1 WHERE account_id = $1 AND id = $2
        RETURNING id, role, person_id, email_sealed, invited_at, accepted_at, sequence
        """,
        account,
        membership,
        role,
    )
    return _membership(row)


async def remove(conn: Connection, account: UUID, member: Membership) -> None:
    """Removes a member with their way into the account; breaks `membership_last_owner` at the end as `set_role`."""
    await conn.execute("DELETE FROM membership WHERE account_id = $1 AND id = $2", account, member.id)
    if member.person is not None:
        await conn.execute("DELETE FROM staff_route WHERE person_id = $1 AND account_id = $2", member.person, account)


async def role_of(conn: Connection, account: UUID, person: UUID) -> str | None:
    """Reads the role of a person in an account's team; None for one who is kept out."""
    role: str | None = await conn.fetchval(
        """
        SELECT role FROM membership WHERE account_id = $1 AND person_id = $2
            AND NOT EXISTS (SELECT FROM disabled_sign_in WHERE account_id = $1 AND person_id = $2)
        """,
        account,
        person,
    )
    return role


async def owners_of(conn: Connection, account: UUID) -> list[UUID]:
    """Reads the persons who own an account."""
    rows = await conn.fetch(
        "SELECT person_id FROM membership WHERE account_id = $1 AND role = 'owner' AND person_id IS NOT NULL", account
    )
    return [row["person_id"] for row in rows]


async def page(conn: Connection, account: UUID, before: UUID, limit: int) -> list[Membership]:
    """Reads members added before `before`, newest first."""
    rows = await conn.fetch(
        """
        SELECT id, role, person_id, email_sealed, invited_at, accepted_at, sequence
        FROM membership WHERE account_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3
        """,
        account,
        before,
        limit,
    )
    return [_membership(row) for row in rows]


async def everyone(conn: Connection, account: UUID, *, most: int, lock: bool = False) -> list[Membership]:
    """Reads the team, oldest first, and with `lock` keeps it from changing until the transaction ends."""
    statement = """
        SELECT id, role, person_id, email_sealed, invited_at, accepted_at, sequence
        FROM membership WHERE account_id = $1 ORDER BY id LIMIT $2
        """
    rows = await conn.fetch(statement + ("FOR UPDATE" if lock else ""), account, most)
    return [_membership(row) for row in rows]


async def accept(conn: Connection, account: UUID, membership: UUID, person: UUID, at: datetime) -> Membership:
    """Makes an invited person a member who may sign in; the invitation's copy of the address goes."""
    row = await conn.fetchrow(
        """
        UPDATE membership SET person_id = $3, accepted_at = $4, email_sealed = NULL
        WHERE account_id = $1 AND id = $2
        RETURNING id, role, person_id, email_sealed, invited_at, accepted_at, sequence
        """,
        account,
        membership,
        person,
        at,
    )
    await open_route(conn, account, person)
    return _membership(row)


async def close_route(conn: Connection, account: UUID, person: UUID) -> None:
    """Takes an account from those that a person may sign in to."""
    await conn.execute("UPDATE staff_route SET closed = true WHERE person_id = $1 AND account_id = $2", person, account)


async def open_route(conn: Connection, account: UUID, person: UUID) -> None:
    """Lets a person sign in to an account."""
    await conn.execute(
        """
        INSERT INTO staff_route (person_id, account_id) VALUES ($1, $2)
        ON CONFLICT (person_id, account_id) DO UPDATE SET closed = false
        """,
        person,
        account,
    )


async def count_change(conn: Connection, account: UUID, membership: UUID) -> Membership:
    """Counts a change of a member that another table keeps."""
    row = await conn.fetchrow(
        """
        UPDATE membership SET sequence = sequence + 1 WHERE account_id = $1 AND id = $2
        RETURNING id, role, person_id, email_sealed, invited_at, accepted_at, sequence
        """,
        account,
        membership,
    )
    return _membership(row)


def _person(row: Any) -> Person:
    return Person(
        row["id"],
        row["email_sealed"],
        row["name_sealed"],
        stored_password(row),
        row["operator"],
        row["password_must_change"],
    )


def _membership(row: Any) -> Membership:
    return Membership(
        row["id"],
        row["role"],
        row["person_id"],
        row["email_sealed"],
        row["invited_at"],
        row["accepted_at"],
        row["sequence"],
    )


def stored_password(row: Any) -> StoredPassword:
    """Reads a row's password columns."""
    return StoredPassword(
        row["password_scheme"],
        row["password_params"],
        row["password_pepper_id"],
        row["password_hash"],
        row.get("password_version", 0),
    )
