"""Owns challenges: a mail with a token that proves a mailbox, once and for a while."""

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

LIFETIMES = {
    VERIFY_REGISTRATION: timedelta(hours=24),
    ALREADY_REGISTERED: timedelta(hours=24),
    INVITE_MEMBER: timedelta(hours=72),
}

_MARK = "gfct_"


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
    spent_by: str | None = None
    """Request that spent it: a repeat of that very request is answered as the first was."""

    def open_at(self, now: datetime) -> bool:
        """Tells whether the mail may still be sent and its token used."""
        return self.spent_at is None and now < self.expires_at


def token_of(challenge: UUID, secret: bytes) -> str:
    """Returns the token, HMAC-SHA-256 of the id: the same each time the mail is made, and stored nowhere."""
    return _MARK + _text(hmac.digest(secret, b"challenge" + challenge.bytes, "sha256"))


def hash_of(token: str) -> bytes:
    """Returns what is stored of a one-time token."""
    return hashlib.sha256(token.encode()).digest()


def link(url: str, token: str) -> str:
    """Returns the address with the token among its query parameters; what the address held stays."""
    parts = urlsplit(url)
    query = "&".join(filter(None, (parts.query, urlencode({"token": token}))))
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
