"""Owns codes of authenticator apps: their secrets, and taking each code once."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import pyotp

from libs.clock import WallClock
from libs.postgres import Connection, Database, as_tenant
from libs.vault import Vault
from services.auth.domain import factor as rules
from services.auth.domain.factor import Factor
from services.auth.domain.sign_in import Door, Pending
from services.auth.repository import FACTOR_TABLE, factors
from services.auth.usecases.second_factors import second_factor_wrong
from services.auth.usecases.sign_in import Write

_SECRET_FIELD = 1


@dataclass(frozen=True, repr=False)
class Enrolment:
    """What an app needs; shown once."""

    factor: Factor
    secret: str
    uri: str


class Totp:
    """Authenticator apps as a second factor (RFC 6238)."""

    def __init__(self, db: Database, vault: Vault, clock: WallClock, randomness: Callable[[int], bytes]) -> None:
        self._db = db
        self._vault = vault
        self._clock = clock
        self._randomness = randomness

    async def set_up(self, door: Door) -> bool:
        """Tells whether whoever goes in has an app."""
        return bool(await self._apps(door))

    async def check(self, pending: Pending, proof: str) -> Write | None:
        """Returns what spends a code of one of the apps; None for a wrong or an older one."""
        door = pending.door
        for app in await self._apps(door):
            step = await self.step(door, app, proof)
            if step is not None and step > app.last_step:
                return self._spending(door, app.id, step)
        return None

    async def enrol(self, door: Door, key: UUID, name: str, at: datetime, *, label: str, issuer: str) -> Enrolment:
        """Returns a new app with its secret, sealed; nothing is stored but the key that seals it."""
        await self._vault.create_subjects(door.owner, [door.principal])
        cipher = await self._vault.cipher(door.owner, door.principal)
        secret = base64.b32encode(self._randomness(rules.SECRET_BYTES)).decode()
        sealed = cipher.seal(FACTOR_TABLE, _SECRET_FIELD, key, secret.encode())
        uri = pyotp.TOTP(secret).provisioning_uri(name=label, issuer_name=issuer)
        return Enrolment(Factor(key, rules.TOTP, name, at, sealed), secret, uri)

    async def step(self, door: Door, app: Factor, code: str) -> int | None:
        """Returns the time step whose code this is; None for a wrong code."""
        cipher = await self._vault.cipher(door.owner, door.principal)
        secret = cipher.open(FACTOR_TABLE, _SECRET_FIELD, app.id, app.secret_sealed or b"").decode()
        return rules.matching_step(code, self._clock.wall(), pyotp.TOTP(secret).generate_otp)

    async def _apps(self, door: Door) -> list[Factor]:
        async with self._db.tenant(door.owner, "read_factors", read_only=True) as conn:
            found = await factors.of_principal(conn, door.owner, door.principal)
        return [one for one in found if one.kind == rules.TOTP]

    def _spending(self, door: Door, app: UUID, step: int) -> Write:
        async def spend(conn: Connection) -> None:
            async with as_tenant(conn, door.owner):
                if not await factors.spend_step(conn, door.owner, app, step):
                    raise second_factor_wrong()

        return spend
