"""Owns which passwords are taken: long enough, not known to attackers, not made of what they know of the person."""

import asyncio
import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from typing import Protocol

from libs import errors
from services.auth.clients.breach_corpus import BreachCorpus
from services.auth.clients.breach_range import SourceAwayError
from services.auth.domain import password as rules
from services.auth.domain import password_words
from services.auth.domain.account import Account


def words_of(account: Account | None, email: str, name: str) -> tuple[str, ...]:
    """Returns what an attacker knows of a person, and of the publication where there is one."""
    publication, site = (account.name, account.reader_url) if account is not None else ("", "")
    return password_words.known_words(email=email, name=name, publication=publication, site=site)


class Source(Protocol):
    """A remote list of breached passwords."""

    async def holds(self, digest: bytes) -> bool:
        """Tells whether a password with this SHA-1 was breached; raises SourceAwayError."""


class Breaches:
    """The lists of breached passwords: those on disk, and one that is asked by range where it is configured."""

    def __init__(
        self,
        corpora: Sequence[BreachCorpus],
        remote: Source | None = None,
        *,
        fail_closed: bool = False,
        away: Callable[[], None] = lambda: None,
    ) -> None:
        self._corpora = tuple(corpora)
        self._remote = remote
        self._fail_closed = fail_closed
        self._away = away

    async def hold(self, password: str, *, fail_closed: bool | None = None) -> bool:
        """Tells whether a password is known to attackers, as it was typed or in its one spelling.

        When the remote list is away, those on disk decide, or with `fail_closed` nobody:
        `unavailable("breach_source_away")`.
        """
        spellings = {password, unicodedata.normalize("NFKC", password)}
        # SHA-1 is the lists' form; nothing of ours is stored in it.
        digests = [hashlib.sha1(text.encode(), usedforsecurity=False).digest() for text in spellings]
        if any(corpus.holds(digest) for corpus in self._corpora for digest in digests):
            return True
        if self._remote is None:
            return False
        # Side by side, so that two spellings take no longer than one.
        asked = await asyncio.gather(*map(self._remote.holds, digests), return_exceptions=True)
        if True in asked:
            return True
        for one in asked:
            if isinstance(one, SourceAwayError):
                self._away()
                if self._fail_closed if fail_closed is None else fail_closed:
                    raise errors.unavailable(
                        "breach_source_away", "The list of breached passwords cannot be asked for a moment.", 5
                    ) from None
                return False
            if isinstance(one, BaseException):
                raise one
        return False


class PasswordPolicy:
    """Judges passwords that somebody wants to have."""

    def __init__(self, breaches: Breaches) -> None:
        self._breaches = breaches

    async def check(
        self, password: str, words: Sequence[str], *, field: str = "password", strong: bool = False
    ) -> None:
        """Raises `invalid` with reason `password_too_short`, `password_too_long`, `password_says_too_much` or
        `password_breached`; `strong` when a second factor is asked for besides.
        """
        rules.checked_password(password, field=field, strong=strong)
        if password_words.says_too_much(password, words):
            raise errors.invalid(
                "password_says_too_much", "Leave your name, your address and the site's name out of it.", field=field
            )
        if await self._breaches.hold(password):
            raise errors.invalid(
                "password_breached", "This password is on lists that attackers try first; take another.", field=field
            )

    async def breached(self, password: str) -> bool:
        """Tells whether a password that was right at a sign-in has become known; a list that is away says no."""
        return await self._breaches.hold(password, fail_closed=False)
