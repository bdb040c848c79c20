"""Owns device tokens: what a browser shows that somebody has signed in on before."""

import base64
import binascii
import hmac
import struct
from datetime import datetime, timedelta
from uuid import UUID

from services.auth.domain.attempts import Trust

LIFETIME = timedelta(days=90)

_MARK = "gfdt_"
_HEAD = struct.Struct(">16sI")
_MAC_BYTES = 32


def make(device: UUID, trust: Trust, at: datetime, secret: bytes) -> str:
    """Returns the token of a device for whom it was signed in on: HMAC-SHA-256, so nothing of it is stored."""
    head = _HEAD.pack(device.bytes, int(at.timestamp()))
    return _MARK + base64.urlsafe_b64encode(head + _mac(head, trust, secret)).rstrip(b"=").decode()


def read(token: str, trust: Trust, now: datetime, secret: bytes) -> UUID | None:
    """Returns the device when the token is the principal's, of the password they have now, and no older than 90 days;
    else None.
    """
    text = token.removeprefix(_MARK)
    if text == token:
        return None
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(raw) != _HEAD.size + _MAC_BYTES:
        return None
    head, mac = raw[: _HEAD.size], raw[_HEAD.size :]
    if not hmac.compare_digest(_mac(head, trust, secret), mac):
        return None
    device, issued = _HEAD.unpack(head)
    return UUID(bytes=device) if now.timestamp() < issued + LIFETIME.total_seconds() else None


def _mac(head: bytes, trust: Trust, secret: bytes) -> bytes:
    return hmac.digest(secret, b"device" + trust.bytes + head, "sha256")
