"""Owns the keys that sign access tokens: making, publishing, rotating, and handing the active one to a signer."""

import asyncio
import base64
import hashlib
from datetime import datetime, timedelta

import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from libs import errors
from libs.clock import WallClock
from libs.ids import IdSource
from libs.postgres import PLATFORM, Database
from libs.vault import Vault
from services.auth.domain import signing_key
from services.auth.domain.signing_key import ACTIVE, NEXT, SigningKey
from services.auth.repository import SIGNING_KEY_TABLE, signing_keys

_FIELD = 1
CACHED_FOR = timedelta(seconds=30)


class SigningKeys:
    """The platform's signing keys; all replicas read them from the database, none keeps its own."""

    def __init__(self, db: Database, vault: Vault, clock: WallClock, ids: IdSource) -> None:
        self._db = db
        self._vault = vault
        self._clock = clock
        self._ids = ids
        self._cached: tuple[datetime, str, ec.EllipticCurvePrivateKey] | None = None
        self._loading = asyncio.Lock()

    async def ensure(self) -> None:
        """Makes the active and the next key of a fresh installation; any number of replicas may call it at once."""
        present = {key.state for key in await self._all()}
        for state in (ACTIVE, NEXT):
            if state not in present:
                key = await self._make(state)
                async with self._db.transaction("create_signing_key") as conn:
                    await signing_keys.add(conn, key)

    async def active(self) -> tuple[str, ec.EllipticCurvePrivateKey]:
        """Returns key id and private key to sign with; read anew every 30 s, well before a key set forgets it."""
        cached = self._cached
        if cached is None or self._clock.wall() >= cached[0]:
            async with self._loading:
                cached = self._cached
                if cached is None or self._clock.wall() >= cached[0]:
                    cached = await self._load()
                    self._cached = cached
        return cached[1], cached[2]

    async def key_set(self) -> list[SigningKey]:
        """Returns the keys to publish: the next one before it is used, retired ones until all they signed is over."""
        now = self._clock.wall()
        return [key for key in await self._all() if key.published_at(now)]

    async def rotate(self, *, even_if_young: bool = False) -> bool:
        """Hands over to the next key where that is due, and makes another; answers whether it did.

        `even_if_young` is for an operator who has to replace a key now: the next one still takes over only when it has
        been published long enough, else `precondition("next_key_too_young")`.
        """
        await self.ensure()
        now = self._clock.wall()
        keys = {key.state: key for key in await self._all() if key.state in (ACTIVE, NEXT)}
        if even_if_young:
            if not signing_key.known_everywhere(keys[NEXT], now):
                since = keys[NEXT].created_at + signing_key.PUBLISH_BEFORE
                raise errors.precondition(
                    "next_key_too_young", f"The next key is not known to every verifier before {since.isoformat()}."
                )
        elif not signing_key.rotation_due(keys[ACTIVE], keys[NEXT], now):
            return False
        following = await self._make(NEXT)
        async with self._db.transaction("rotate_signing_key") as conn:
            if not await signing_keys.hand_over(conn, keys[ACTIVE].id, keys[NEXT].id, now):
                return False
            await signing_keys.add(conn, following)
        self._cached = None
        return True

    async def _all(self) -> list[SigningKey]:
        async with self._db.transaction("read_signing_keys", read_only=True) as conn:
            return await signing_keys.every(conn)

    async def _load(self) -> tuple[datetime, str, ec.EllipticCurvePrivateKey]:
        for key in await self._all():
            if key.state == ACTIVE and key.private_sealed is not None:
                cipher = await self._vault.account_cipher(PLATFORM)
                raw = cipher.open(SIGNING_KEY_TABLE, _FIELD, key.id, key.private_sealed)
                private = serialization.load_der_private_key(raw, password=None)
                assert isinstance(private, ec.EllipticCurvePrivateKey)
                return self._clock.wall() + CACHED_FOR, key.kid, private
        raise errors.unavailable("signing_key_missing", "Nobody can sign in for a moment.", 5)

    async def _make(self, state: str) -> SigningKey:
        private = ec.generate_private_key(ec.SECP256R1())
        numbers = private.public_key().public_numbers()
        x, y = _coordinate(numbers.x), _coordinate(numbers.y)
        raw = private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        key_id = self._ids.new()
        cipher = await self._vault.account_cipher(PLATFORM)
        sealed = cipher.seal(SIGNING_KEY_TABLE, _FIELD, key_id, raw)
        return SigningKey(key_id, thumbprint(x, y), state, x, y, sealed, self._clock.wall(), None, None)


def thumbprint(x: str, y: str) -> str:
    """Returns the key id: the JWK's SHA-256 thumbprint (RFC 7638)."""
    members = orjson.dumps({"crv": "P-256", "kty": "EC", "x": x, "y": y}, option=orjson.OPT_SORT_KEYS)
    return _text(hashlib.sha256(members).digest())


def _coordinate(number: int) -> str:
    return _text(number.to_bytes(32))


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
