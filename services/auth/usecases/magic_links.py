"""Owns signing readers in with a link from a mail, in the browser that asked for it alone."""

import hmac
from collections.abc import Callable

from libs import caller
from libs.postgres import Connection
from services.auth.domain import challenge as rules
from services.auth.domain import session
from services.auth.domain.sign_in import EMAIL_LINK, Door
from services.auth.repository import credentials
from services.auth.usecases.challenges import Challenges, token_invalid, token_spent
from services.auth.usecases.sessions import Pair
from services.auth.usecases.sign_in import SignIn, Waiting


class MagicLinks:
    """Links that sign in."""

    def __init__(self, challenges: Challenges, sign_in: SignIn, randomness: Callable[[int], bytes]) -> None:
        self._challenges = challenges
        self._sign_in = sign_in
        self._randomness = randomness

    async def request(self, email: str) -> str:
        """Has a link mailed to the reader with the address, if there is one; returns what the browser is to keep."""
        who = caller.current()
        secret = rules.browser_secret(self._randomness(rules.BROWSER_SECRET_BYTES))
        await self._challenges.ask(
            rules.MAGIC_LINK, who.require_account(), email, live=who.live, browser_hash=rules.hash_of(secret)
        )
        return secret

    async def redeem(self, token: str, browser_secret: str) -> Pair | Waiting:
        """Signs in with a link, once; to another browser the link is `token_invalid`, and stays as it is.

        Raises as `Challenges.by_token`.
        """
        who = caller.current()
        account, found = await self._challenges.by_token(token, rules.MAGIC_LINK)
        kept = rules.hash_of(browser_secret)
        if account != who.require_account() or not hmac.compare_digest(found.browser_hash or b"", kept):
            raise token_invalid()
        if found.spent_at is not None:
            # Tokens are shown once: even a repeat of the very request asks for a new link.
            raise token_spent()

        async def spend(conn: Connection) -> None:
            await self._challenges.spend(conn, account, found, found.subject)
            if not await credentials.has_address(conn, account, found.subject, found.email_index):
                raise token_invalid()

        return await self._sign_in.proven(
            Door(session.SUBSCRIBER, account, who.live, found.subject), (EMAIL_LINK,), spend
        )
