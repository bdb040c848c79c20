"""Owns the life of signing keys: published before use, used for a while, published a while longer."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

NEXT = "next"
ACTIVE = "active"
RETIRED = "retired"

ROTATE_AFTER = timedelta(days=30)
PUBLISH_BEFORE = timedelta(hours=24)
"""How long verifiers may have cached the key set without knowing the key that is used next."""
KEEP_RETIRED = timedelta(hours=1)
"""Longer than any access token signed with it lives, and than any replica still uses it."""


@dataclass(frozen=True)
class SigningKey:
    """One ES256 key (P-256). The private part is sealed, and gone once the key is retired."""

    id: UUID
    kid: str
    state: str
    x: str
    y: str
    private_sealed: bytes | None
    created_at: datetime
    activated_at: datetime | None
    retired_at: datetime | None

    def published_at(self, now: datetime) -> bool:
        """Tells whether the key set still shows it."""
        return self.retired_at is None or now < self.retired_at + KEEP_RETIRED


def rotation_due(active: SigningKey, following: SigningKey, now: datetime) -> bool:
    """Tells whether the next key is to take over: the active one is old, and the next one is known everywhere."""
    return (
        active.activated_at is not None
        and now >= active.activated_at + ROTATE_AFTER
        and known_everywhere(following, now)
    )


def known_everywhere(key: SigningKey, now: datetime) -> bool:
    """Tells whether a key has been published long enough to sign with."""
    return now >= key.created_at + PUBLISH_BEFORE
