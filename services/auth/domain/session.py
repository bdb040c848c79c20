"""Owns sessions: refresh tokens that follow one from another, and when one is refused or ends them all."""

import base64
import binascii
import hmac
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from uuid import UUID

LIFETIME = timedelta(days=30)
"""From a reader's sign-in, however often it is refreshed (NIST SP 800-63B-4, 2.1.3)."""
STAFF_LIFETIME = timedelta(hours=24)
"""Of staff and operators, whatever their assurance (NIST SP 800-63B-4, 2.2.3)."""
STAFF_IDLE = timedelta(hours=1)
"""Unused for so long, a session of staff or operators is over (NIST SP 800-63B-4, 2.2.3)."""
TOUCH_EVERY = timedelta(minutes=1)
"""How exact the last use is told."""
GRACE = timedelta(seconds=10)
ACCESS_SECONDS = 600
AAL1 = "aal1"
AAL2 = "aal2"
ENROL = "enrol"
"""Below every assurance: nothing is allowed but to add a second factor (libs.admission.ENROL_ONLY)."""
SALT_BYTES = 32
MOST = 100
"""Sessions of one reader, or of one person in an account; a further one ends the oldest."""

STAFF = "STAFF"
SUBSCRIBER = "SUBSCRIBER"
OPERATOR = "PLATFORM_OPERATOR"

SIGNED_OUT = "signed_out"
ROLE_CHANGED = "role_changed"
REUSED = "refresh_token_reused"
CREDENTIAL_REPLACED = "credential_replaced"
ENDED = "ended"
"""By whoever it belongs to, from another session."""
ENDED_BY_STAFF = "ended_by_staff"
DISABLED = "disabled"
"""Staff keep whoever it belongs to out."""
PASSWORD_CHANGED = "password_changed"  # noqa: S105 — a reason
PASSWORD_RESET = "password_reset"  # noqa: S105 — a reason
EMAIL_REVERTED = "email_reverted"
FACTORS_CHANGED = "factors_changed"
IDENTITY_REMOVED = "identity_removed"
PROVIDER_ENDED = "provider_ended"
PROVIDER_REQUIRED = "provider_required"
TOO_MANY = "too_many"

_MARK = "gfrt_"
_COOKIE_MARK = "gfcs_"
_ID_BYTES = 16
_HEAD = struct.Struct(">16sI")
_MAC_BYTES = 32


@dataclass(frozen=True)
class Session:
    """One sign-in, with the state of its family of refresh tokens."""

    id: UUID
    account: UUID
    """The nil UUID for the operator."""
    kind: str
    live: bool
    principal: UUID
    """The person, or the reader's subject."""
    acr: str
    salt: bytes
    generation: int
    rotated_at: datetime
    authenticated_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    """None for one that older code began."""
    device_sealed: bytes | None = None
    identity: UUID | None = None
    """The identity at another provider that it began with."""

    @property
    def started_at(self) -> datetime:
        """When somebody signed in: stepping up renews `authenticated_at`, the identifier (UUIDv7) keeps its time."""
        return datetime.fromtimestamp((self.id.int >> 80) / 1000, UTC)

    @property
    def used_at(self) -> datetime:
        """When it was last used, as far as is known."""
        return self.last_used_at or self.rotated_at


class Answer(Enum):
    """What a presented refresh token deserves."""

    ROTATE = "rotate"
    """It is the newest: its successor becomes the newest."""
    REPEAT = "repeat"
    """It was the newest a moment ago: the same successor, so that two tabs do not part ways."""
    REUSED = "reused"
    """It was spent before: somebody else holds a copy, so the family ends (RFC 9700, 4.14)."""
    REFUSE = "refuse"
    """The session is over, or the token is none of its."""


def lifetime(kind: str) -> timedelta:
    """Returns how long a session lasts at most."""
    return LIFETIME if kind == SUBSCRIBER else STAFF_LIFETIME


def over(session: Session, now: datetime) -> bool:
    """Tells whether a session was ended, has lived its time, or was left idle."""
    idle = session.kind != SUBSCRIBER and now >= session.used_at + STAFF_IDLE
    return session.revoked_at is not None or now >= session.expires_at or idle


def judge(session: Session, generation: int, now: datetime) -> Answer:
    """Returns what to do with a token of that generation whose signature holds."""
    return Answer.REFUSE if over(session, now) else follow(generation, session.generation, session.rotated_at, now)


def follow(generation: int, newest: int, rotated_at: datetime, now: datetime) -> Answer:
    """Returns what to do with a token of a generation, in a family that goes on."""
    if generation > newest:
        return Answer.REFUSE
    if generation == newest:
        return Answer.ROTATE
    if generation == newest - 1 and now < rotated_at + GRACE:
        return Answer.REPEAT
    return Answer.REUSED


def refresh_token(session: UUID, salt: bytes, generation: int, secret: bytes) -> str:
    """Returns the token of a generation: session, generation and 256 bits of HMAC-SHA-256.

    It follows from the session's random salt (in the database) and the secret (outside of it), so nothing of a token
    is stored, and every replica derives the same successor.
    """
    head = _HEAD.pack(session.bytes, generation)
    return _MARK + base64.urlsafe_b64encode(head + _mac(head, salt, secret)).rstrip(b"=").decode()


def read(token: str) -> tuple[UUID, int, bytes] | None:
    """Returns session, generation and signature that a token claims; None for anything else."""
    raw = _decoded(token, _MARK, _HEAD.size + _MAC_BYTES)
    if raw is None:
        return None
    session, generation = _HEAD.unpack_from(raw)
    return UUID(bytes=session), generation, raw[_HEAD.size :]


def cookie(session: UUID, salt: bytes, secret: bytes) -> str:
    """Returns the cookie of a session: its identifier and 256 bits of HMAC-SHA-256, the same for all its life.

    As with refresh tokens, neither the database nor the secret alone makes one; and neither makes the other.
    """
    head = session.bytes
    return _COOKIE_MARK + base64.urlsafe_b64encode(head + _cookie_mac(head, salt, secret)).rstrip(b"=").decode()


def read_cookie(cookie: str) -> tuple[UUID, bytes] | None:
    """Returns session and signature that a cookie claims; None for anything else."""
    raw = _decoded(cookie, _COOKIE_MARK, _ID_BYTES + _MAC_BYTES)
    return None if raw is None else (UUID(bytes=raw[:_ID_BYTES]), raw[_ID_BYTES:])


def signed_cookie(session: Session, signature: bytes, secret: bytes) -> bool:
    """Tells whether a cookie's signature holds for the session, in constant time."""
    return hmac.compare_digest(_cookie_mac(session.id.bytes, session.salt, secret), signature)


def signed(session: Session, generation: int, signature: bytes, secret: bytes) -> bool:
    """Tells whether a token's signature holds for the session, in constant time."""
    head = _HEAD.pack(session.id.bytes, generation)
    return hmac.compare_digest(_mac(head, session.salt, secret), signature)


def _mac(head: bytes, salt: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, b"refresh" + salt + head, "sha256")


def _cookie_mac(head: bytes, salt: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, b"cookie" + salt + head, "sha256")


def _decoded(token: str, mark: str, size: int) -> bytes | None:
    text = token.removeprefix(mark)
    if text == token:
        return None
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == size else None
