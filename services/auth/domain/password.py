"""Owns passwords: which are long enough, what of them is hashed, how a hash is stored, and how much work each costs."""

import base64
import hmac
import unicodedata
from dataclasses import dataclass

from libs import errors

SHORTEST = 15
"""Code points without a second factor (NIST SP 800-63B-4, 3.1.1.2; ASVS 5.0 6.2.1)."""
SHORTEST_STRONG = 8
"""Where a second factor is asked for besides."""
LONGEST = 1024

SCHEME = "bcrypt-hmac-sha384"
_NONE = "none"
LEAST_COST = 4
MOST_COST = 16


@dataclass(frozen=True)
class StoredPassword:
    """A password as it is stored. Personal data and a secret: never logged."""

    scheme: str
    params: str
    """What the scheme needs to be repeated; of bcrypt the cost."""
    pepper_id: str
    hash: str
    version: int = 0
    """Counts the passwords that its owner has had; hashing one anew makes no other. 0 for one that waits."""

    @property
    def present(self) -> bool:
        """Whether there is one: whoever comes in another way may have none."""
        return self.scheme != _NONE

    @property
    def cost(self) -> int:
        """Returns bcrypt's cost."""
        return int(self.params)


@dataclass(frozen=True)
class PasswordCount:
    """How many passwords are hashed alike."""

    scheme: str
    params: str
    pepper_id: str
    count: int
    imported: bool


NO_PASSWORD = StoredPassword(_NONE, "0", "", "")
"""Of somebody who comes in another way: no password is right, at the work of any wrong one, until a mail sets one."""


def checked_password(password: str, *, field: str = "password", strong: bool = False) -> str:
    """Returns the password as it is; raises `invalid("password_too_short")` or `invalid("password_too_long")`.

    Length is counted in code points: at most 1,024 as sent, so that normalising stays cheap, and at least 15 after
    NFKC (8 where a second factor is asked for besides), so that no sequence of combining marks makes a short one long.
    Nothing is said about composition (ASVS 6.2.5).
    """
    if len(password) > LONGEST:
        raise errors.invalid("password_too_long", f"A password has at most {LONGEST} characters.", field=field)
    shortest = SHORTEST_STRONG if strong else SHORTEST
    if len(unicodedata.normalize("NFKC", password)) < shortest:
        raise errors.invalid("password_too_short", f"A password has at least {shortest} characters.", field=field)
    return password


def material(password: str, pepper: bytes) -> bytes:
    """Returns what bcrypt hashes: base64(HMAC-SHA384(pepper, NFKC(password))), 64 bytes without a NUL.

    So bcrypt's limit of 72 bytes never cuts a password, and the NFC and NFD spellings of one are the same.
    """
    normal = unicodedata.normalize("NFKC", password).encode()
    return base64.b64encode(hmac.digest(pepper, normal, "sha384"))


def work(cost: int) -> int:
    """Returns the work units of one bcrypt run."""
    return 1 << cost


def topping_up(done: int, target: int) -> list[int]:
    """Returns the costs of further runs that raise one run of cost `done` to exactly the work of `target`.

    2^target − 2^done = 2^done + 2^(done+1) + … + 2^(target−1).
    """
    return list(range(done, target))
