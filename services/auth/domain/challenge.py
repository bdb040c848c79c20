"""Owns challenges: a mail with a token or a code that proves a mailbox, for a while; and notices without one."""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode, urlsplit, urlunsplit
from uuid import UUID

from services.auth.domain.password import StoredPassword

VERIFY_REGISTRATION = "verify_registration"
ALREADY_REGISTERED = "already_registered"
INVITE_MEMBER = "invite_member"

RESET_PASSWORD = "reset_password"  # noqa: S105 — a purpose
MAGIC_LINK = "magic_link"
CHANGE_EMAIL = "change_email"
REVERT_EMAIL = "revert_email"
UNLOCK = "unlock"
EMAIL_CODE = "email_code"

PASSWORD_CHANGED = "password_changed"  # noqa: S105 — a purpose
PASSWORD_BREACHED = "password_breached"  # noqa: S105 — a purpose
NEW_DEVICE = "new_device"
IMPOSSIBLE_TRAVEL = "impossible_travel"
FACTOR_ADDED = "factor_added"
FACTOR_REMOVED = "factor_removed"
RECOVERY_CODE_USED = "recovery_code_used"
EMAIL_CHANGED = "email_changed"
SESSION_ENDED = "session_ended"
SIGN_IN_LOCKED = "sign_in_locked"
IDENTITY_ADDED = "identity_added"
IDENTITY_REMOVED = "identity_removed"
PASSKEY_COPIED = "passkey_copied"

LIFETIMES = {
    VERIFY_REGISTRATION: timedelta(hours=24),
    ALREADY_REGISTERED: timedelta(hours=24),
    INVITE_MEMBER: timedelta(hours=72),
    RESET_PASSWORD: timedelta(hours=1),
    MAGIC_LINK: timedelta(minutes=10),
    CHANGE_EMAIL: timedelta(hours=1),
    REVERT_EMAIL: timedelta(days=7),
    UNLOCK: timedelta(hours=1),
    EMAIL_CODE: timedelta(minutes=10),
    PASSWORD_CHANGED: timedelta(hours=72),
    PASSWORD_BREACHED: timedelta(hours=72),
    NEW_DEVICE: timedelta(hours=72),
    IMPOSSIBLE_TRAVEL: timedelta(hours=72),
    FACTOR_ADDED: timedelta(hours=72),
    FACTOR_REMOVED: timedelta(hours=72),
    RECOVERY_CODE_USED: timedelta(hours=72),
    EMAIL_CHANGED: timedelta(hours=72),
    SESSION_ENDED: timedelta(hours=72),
    SIGN_IN_LOCKED: timedelta(hours=72),
    IDENTITY_ADDED: timedelta(hours=72),
    IDENTITY_REMOVED: timedelta(hours=72),
    PASSKEY_COPIED: timedelta(hours=72),
}

IN_QUERY = frozenset({VERIFY_REGISTRATION, INVITE_MEMBER})
"""Links whose token stands in the query."""
IN_FRAGMENT = frozenset({RESET_PASSWORD, MAGIC_LINK, CHANGE_EMAIL, REVERT_EMAIL, UNLOCK})
"""Links whose token stands in the fragment, which a browser sends neither to a server nor as Referer."""
WITH_TOKEN = IN_QUERY | IN_FRAGMENT

UNPROVEN = frozenset({VERIFY_REGISTRATION, CHANGE_EMAIL})
"""What goes to a mailbox that nobody has proven yet: whoever has it sent writes the name, so none stands in it."""

WAY_BACK = frozenset({RESET_PASSWORD, UNLOCK})
"""What gets in again whoever others keep out; one works in any browser, for an hour."""

BY_PASSWORD = frozenset({RESET_PASSWORD, MAGIC_LINK, UNLOCK, EMAIL_CODE})
"""What is void once the password was set anew."""
BY_ADDRESS = BY_PASSWORD | {CHANGE_EMAIL}
"""What is void once another address counts."""

_MARK = "gfct_"
_BROWSER_MARK = "gfbs_"
BROWSER_SECRET_BYTES = 32
_CODE_DIGITS = 8
"""26 bits (ASVS 5.0 6.5.4 asks for 20), with five tries (domain/sign_in.py)."""


@dataclass(frozen=True)
class Challenge:
    """One mail to be answered.

    `subject` is whose key seals the address: the reader who would be added, the reader who is known already, or the
    membership of an invitation.
    """

    id: UUID
    purpose: str
    subject: UUID
    email_index: bytes
    email_sealed: bytes
    name_sealed: bytes
    expires_at: datetime
    created_at: datetime
    password: StoredPassword | None = None
    membership: UUID | None = None
    token_hash: bytes | None = None
    spent_at: datetime | None = None
    details_sealed: bytes = b""
    """What the mail tells besides, as JSON."""
    browser_hash: bytes | None = None
    """SHA-256 of what the asking browser keeps."""
    spent_by: str | None = None
    """Request that spent it: a repeat of that very request is answered as the first was."""

    def open_at(self, now: datetime) -> bool:
        """Tells whether the mail may still be sent and its token used."""
        return self.spent_at is None and now < self.expires_at


def token_of(challenge: UUID, secret: bytes) -> str:
    """Returns the token, HMAC-SHA-256 of the id: the same each time the mail is made, and stored nowhere."""
    return _MARK + _text(hmac.digest(secret, b"challenge" + challenge.bytes, "sha256"))


def code_of(challenge: UUID, secret: bytes) -> str:
    """Returns the code of eight digits, from HMAC-SHA-256 of the id: it is stored nowhere, not even hashed."""
    mac = hmac.digest(secret, b"code" + challenge.bytes, "sha256")
    return f"{int.from_bytes(mac[:16], 'big') % 10**_CODE_DIGITS:0{_CODE_DIGITS}}"


def kept_secret(challenge: UUID, secret: bytes) -> str:
    """Returns what the browser keeps that had a mail sent: the same for a repetition, and stored nowhere."""
    return _BROWSER_MARK + _text(hmac.digest(secret, b"browser" + challenge.bytes, "sha256"))


def browser_secret(raw: bytes) -> str:
    """Returns what the browser keeps that asks for a link."""
    return _BROWSER_MARK + _text(raw)


def hash_of(token: str) -> bytes:
    """Returns what is stored of a one-time token."""
    return hashlib.sha256(token.encode()).digest()


def link(url: str, token: str) -> str:
    """Returns the address with the token among its query parameters; what the address held stays."""
    parts = urlsplit(url)
    query = "&".join(filter(None, (parts.query, urlencode({"token": token}))))
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def fragment_link(url: str, purpose: str, token: str) -> str:
    """Returns the address with purpose and token in its fragment; the query stays."""
    parts = urlsplit(url)
    fragment = urlencode({"purpose": purpose, "token": token})
    return urlunsplit((parts.scheme, parts.netloc, parts.path, parts.query, fragment))


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
