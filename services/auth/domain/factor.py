"""Owns second factors: which codes are right, how often may be tried, and who may change what they sign in with."""

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services.auth.domain import session

TOTP = "totp"
EMAIL_CODE = "email_code"
PASSKEY = "passkey"
SECURITY_KEY = "security_key"

SECRET_BYTES = 20
"""160 bits, as RFC 4226 section 4 recommends."""
STEP_SECONDS = 30
WINDOW = (-1, 0, 1)
"""Steps around the present one whose codes are taken (RFC 6238, 5.2)."""
MOST_TOTP = 5
CONFIRM_WITHIN = timedelta(minutes=10)
MOST_CODES_SENT = 3

RECOVERY_CODES = 10
_RECOVERY_BYTES = 10
"""80 bits (NIST SP 800-63B-4, 4.2.1.1, asks for 64)."""

FRESH = timedelta(minutes=15)

TRIES_IN_A_ROW = 5
_FIRST_WAIT = timedelta(seconds=30)
_LONGEST_WAIT = timedelta(minutes=15)
"""Bounded, since whoever knows the password could keep its owner out with wrong codes (recovery codes wait never)."""
MOST_IN_A_ROW = 100
"""NIST SP 800-63B-4, 3.2.2."""
_SHUT = timedelta(days=1)


@dataclass(frozen=True)
class Factor:
    """A second factor of a principal."""

    id: UUID
    kind: str
    name: str
    created_at: datetime
    secret_sealed: bytes | None = None
    last_step: int = 0
    """The newest time step whose code was taken."""
    last_used_at: datetime | None = None
    """Of keys; None for one that was not used yet."""
    backed_up: bool = False
    """A passkey that its owner has on other devices too, or can get back."""
    clone_suspected_at: datetime | None = None
    """When a key did not count its signatures upwards."""


def step_at(now: datetime) -> int:
    """Returns the time step of RFC 6238."""
    return int(now.timestamp()) // STEP_SECONDS


def matching_step(code: str, now: datetime, code_at: Callable[[int], str]) -> int | None:
    """Returns the newest step around now whose code this is; compares with all of them, in constant time."""
    given = code.strip()
    if not (given.isascii() and given.isdecimal()):
        return None
    present = step_at(now)
    found = [present + offset for offset in WINDOW if hmac.compare_digest(code_at(present + offset), given)]
    return max(found, default=None)


def wait_after(tries: int) -> timedelta:
    """Returns how long to wait after so many tries in a row without success: 30 s after five, then doubling; a day
    after a hundred.
    """
    if tries >= MOST_IN_A_ROW:
        return _SHUT
    rounds, rest = divmod(tries, TRIES_IN_A_ROW)
    if rest or not rounds:
        return timedelta()
    return min(_FIRST_WAIT * (1 << min(rounds - 1, 10)), _LONGEST_WAIT)


def new_recovery_code(randomness: Callable[[int], bytes]) -> str:
    """Returns a code of 80 bits, in four groups of letters and digits."""
    text = base64.b32encode(randomness(_RECOVERY_BYTES)).decode().lower()
    return "-".join(text[place : place + 4] for place in range(0, len(text), 4))


def recovery_hash(code: str, owner: UUID, principal: UUID) -> bytes:
    """Returns what is stored of a recovery code; spaces, hyphens and capitals make no difference."""
    plain = "".join(letter for letter in code.lower() if letter.isalnum())
    return hashlib.sha256(owner.bytes + principal.bytes + plain.encode()).digest()


def may_change(acr: str | None, proven_at: datetime | None, now: datetime, *, has_factor: bool) -> bool:
    """Tells whether a session was proven freshly and, where there is a factor, strongly enough to change factors."""
    fresh = proven_at is not None and now - proven_at <= FRESH
    return fresh and (acr == session.AAL2 or not has_factor)
