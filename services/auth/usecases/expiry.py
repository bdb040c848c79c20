"""Owns letting go of what is over: challenges, sessions and retired keys."""

from datetime import timedelta

from libs.clock import WallClock
from libs.postgres import Database
from services.auth.domain import attempts, factor, mailbox, signing_key
from services.auth.repository import expiry

KEEP_CHALLENGES = timedelta(days=7)
"""After they expired, so that an old link still says that it was used."""
KEEP_ATTEMPTS = timedelta(days=30)
KEEP_SESSIONS = timedelta(days=1)


class Expiry:
    """Clears away for all accounts, as the jobs role."""

    def __init__(self, jobs: Database, clock: WallClock) -> None:
        self._jobs = jobs
        self._clock = clock

    async def clear(self) -> bool:
        """Deletes one batch of each; answers whether there may be more."""
        now = self._clock.wall()
        async with self._jobs.transaction("clear_expired") as conn:
            challenges = await expiry.delete_challenges(conn, now - KEEP_CHALLENGES)
            sessions = await expiry.delete_sessions(conn, now - KEEP_SESSIONS)
            await expiry.delete_session_ends(conn, now)
            await expiry.delete_sign_ins(conn, now)
            await expiry.delete_federated_sign_ins(conn, now)
            await expiry.delete_passkey_challenges(conn, now)
            await expiry.delete_oauth_requests(conn, now)
            await expiry.delete_oauth_authorizations(conn, now)
            await expiry.delete_unconfirmed_factors(conn, now - factor.CONFIRM_WITHIN)
            await expiry.delete_attempts(conn, now - KEEP_ATTEMPTS)
            await expiry.delete_known_networks(conn, now - attempts.KNOWN_FOR)
            await expiry.delete_mailboxes(conn, now - mailbox.KEPT)
            await expiry.forget_new_keys(conn, now)
            await expiry.forget_imported_passwords(conn, now)
            await expiry.delete_saml(conn, now)
            await expiry.delete_signing_keys(conn, now - signing_key.KEEP_RETIRED)
        return max(challenges, sessions) >= expiry.BATCH
