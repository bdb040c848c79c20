"""Owns clearing away what is over, for all accounts; runs as the jobs role."""

from datetime import datetime

from libs.postgres import Connection

BATCH = 1_000


async def delete_challenges(conn: Connection, before: datetime) -> int:
    """Deletes a batch of challenges that expired before, with their routes; returns how many."""
    rows = await conn.fetch(
        """
        WITH old AS (SELECT account_id, id FROM challenge WHERE expires_at < $1 LIMIT $2)
        DELETE FROM challenge USING old WHERE challenge.account_id = old.account_id AND challenge.id = old.id
        RETURNING challenge.id
        """,
        before,
        BATCH,
    )
    await conn.execute("DELETE FROM challenge_route WHERE expires_at < $1", before)
    return len(rows)


async def delete_sessions(conn: Connection, before: datetime) -> int:
    """Deletes a batch of sessions whose lifetime ended before, with their routes; returns how many."""
    rows = await conn.fetch(
        """
        WITH old AS (SELECT account_id, id FROM session WHERE expires_at < $1 LIMIT $2)
        DELETE FROM session USING old WHERE session.account_id = old.account_id AND session.id = old.id
        RETURNING session.id
        """,
        before,
        BATCH,
    )
    await conn.execute("DELETE FROM session_route WHERE expires_at < $1", before)
    return len(rows)


async def delete_session_ends(conn: Connection, before: datetime) -> None:
    """Deletes ends of sessions none of whose access tokens are alive."""
    await conn.execute("DELETE FROM session_end WHERE until < $1", before)


async def delete_sign_ins(conn: Connection, before: datetime) -> None:
    """Deletes sign-ins that waited for longer than they may."""
    await conn.execute("DELETE FROM sign_in WHERE expires_at < $1", before)


async def delete_federated_sign_ins(conn: Connection, before: datetime) -> None:
    """Deletes browsers that were sent to a provider and have not come back in time."""
    await conn.execute("DELETE FROM federated_sign_in WHERE expires_at < $1", before)


async def delete_passkey_challenges(conn: Connection, before: datetime) -> None:
    """Deletes what no authenticator signed in time."""
    await conn.execute("DELETE FROM passkey_challenge WHERE expires_at < $1", before)


async def delete_oauth_requests(conn: Connection, before: datetime) -> None:
    """Deletes what browsers were sent for and nobody has decided."""
    await conn.execute("DELETE FROM oauth_request WHERE expires_at < $1", before)


async def delete_oauth_authorizations(conn: Connection, before: datetime) -> None:
    """Deletes authorizations whose session's lifetime ended before."""
    await conn.execute("DELETE FROM oauth_authorization WHERE expires_at < $1", before)


async def delete_unconfirmed_factors(conn: Connection, before: datetime) -> None:
    """Deletes factors that were begun before and never confirmed."""
    await conn.execute("DELETE FROM factor WHERE confirmed_at IS NULL AND created_at < $1", before)


async def delete_attempts(conn: Connection, before: datetime) -> None:
    """Deletes what wrong passwords were counted with before."""
    await conn.execute("DELETE FROM attempt WHERE updated_at < $1", before)


async def delete_known_networks(conn: Connection, before: datetime) -> None:
    """Deletes networks that nobody has signed in from since."""
    await conn.execute("DELETE FROM known_network WHERE seen_at < $1", before)


async def delete_mailboxes(conn: Connection, before: datetime) -> None:
    """Deletes mailboxes that nobody has asked to be mailed since."""
    await conn.execute("DELETE FROM mailbox WHERE asked_at < $1", before)


async def forget_new_keys(conn: Connection, now: datetime) -> None:
    """Forgets API keys whose making can no longer be repeated."""
    await conn.execute("UPDATE api_key SET secret_sealed = NULL, retry_until = NULL WHERE retry_until < $1", now)


async def forget_imported_passwords(conn: Connection, now: datetime) -> None:
    """Forgets imported passwords whose time is over; the address stays for a reset."""
    await conn.execute(
        "UPDATE imported_password SET password_hash = '', usable_until = NULL WHERE usable_until < $1", now
    )


async def delete_signing_keys(conn: Connection, before: datetime) -> None:
    """Deletes keys that were retired before: nothing they signed is still valid."""
    await conn.execute("DELETE FROM signing_key WHERE retired_at < $1", before)


async def delete_saml(conn: Connection, before: datetime) -> None:
    """Deletes sign-ins by SAML that took too long, and assertions that nobody would take again."""
    await conn.execute("DELETE FROM saml_sign_in WHERE expires_at < $1", before)
    await conn.execute("DELETE FROM saml_assertion WHERE expires_at < $1", before)
