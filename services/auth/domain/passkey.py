"""Owns passkeys and security keys: where they work, what is kept of each, and what stands in where there is none."""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID

REGISTRATION = "registration"
SIGN_IN = "sign_in"
SECOND_FACTOR = "second_factor"

LIFETIME = timedelta(minutes=5)
CHALLENGE_BYTES = 32
HANDLE_BYTES = 64
"""As WebAuthn level 3, 14.6.1, recommends."""
MOST = 10
LONGEST_ANSWER = 16_384
SHORTEST_ID, LONGEST_ID = 16, 1023

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# Lengths of credential ids and transports as the authenticators have them that most people use.
_SHAPES = (
    (16, ("hybrid", "internal")),
    (20, ("hybrid", "internal")),
    (32, ("internal",)),
    (32, ("hybrid", "internal")),
    (48, ("nfc", "usb")),
    (64, ("usb",)),
)


@dataclass(frozen=True)
class RelyingParty:
    """Where passkeys work: they are made for `id`, a host name, and used on pages of `origins`."""

    id: str
    origins: tuple[str, ...]

    @classmethod
    def of(cls, public_url: str, chosen_id: str, origins: tuple[str, ...]) -> "RelyingParty":
        """Returns the party of the settings, by default that of the public URL; raises ValueError for one that no
        browser would serve: an origin has to lie on the party's host or below, and be secure.
        """
        public = urlsplit(public_url)
        party = cls(chosen_id or public.hostname or "", origins or (f"{public.scheme}://{public.netloc}",))
        for origin in party.origins:
            parts = urlsplit(origin)
            host = parts.hostname or ""
            secure = parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
            if not secure or origin != f"{parts.scheme}://{parts.netloc}":
                raise ValueError(f"passkey_origins: {origin} is not the origin of secure pages")
            if host != party.id and not host.endswith(f".{party.id}"):
                raise ValueError(f"passkey_origins: {origin} is not on {party.id or 'passkey_rp_id'}")
        return party


@dataclass(frozen=True)
class Described:
    """A key as browsers are told of it."""

    credential_id: bytes
    transports: tuple[str, ...]


@dataclass(frozen=True)
class Passkey:
    """A key that an authenticator holds, of a principal's factor."""

    id: UUID
    """The factor's."""
    kind: str
    """`passkey`, which verifies its user, or `security_key`, which is there and no more."""
    principal: UUID
    credential_id: bytes
    public_key: bytes
    """COSE."""
    user_handle: bytes
    sign_count: int
    backup_eligible: bool
    """It may be copied to other devices of its owner."""
    backed_up: bool
    transports: tuple[str, ...]

    @property
    def described(self) -> Described:
        """Returns what a browser needs to find it."""
        return Described(self.credential_id, self.transports)


@dataclass(frozen=True)
class Asked:
    """What an authenticator was asked for."""

    ceremony: str
    kind: str
    expires_at: datetime
    principal: UUID | None = None
    """Who alone may answer; None for whoever has a passkey."""
    sign_in: UUID | None = None
    user_handle: bytes | None = None


def hash_of(challenge: bytes) -> bytes:
    """Returns what is stored of a challenge."""
    return hashlib.sha256(challenge).digest()


def decoys(secret: bytes, owner: UUID, email_index: bytes) -> list[Described]:
    """Returns keys that nobody has, the same for an address each time: half of all addresses have one, a quarter two.

    They look like people's own, so that asking by address tells nobody who is registered (ASVS 5.0 6.3.8).
    """
    seed = hmac.digest(secret, b"decoys" + owner.bytes + email_index, "sha512")
    draws = int.from_bytes(seed[:2], "big")
    number = 1
    while number < MOST and draws >> number & 1:
        number += 1
    found = []
    for place in range(number):
        raw = hmac.digest(secret, b"decoy" + bytes((place,)) + seed, "sha512")
        length, transports = _SHAPES[seed[2 + place] % len(_SHAPES)]
        found.append(Described(raw[:length], transports))
    return found
