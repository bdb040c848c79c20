"""Owns auth's settings."""

from dataclasses import dataclass, field
from pathlib import Path

import orjson

from libs.config import Secret
from libs.postgres import PostgresConfig
from libs.service import ServiceConfig
from libs.vault import VaultConfig
from services.auth.domain.passkey import RelyingParty

LEAST_SECRET_LENGTH = 32


@dataclass(frozen=True)
class SecretsConfig:
    """What auth derives tokens and hashes with.

    `key_pepper` is the gateway's as well. `password_pepper` is one text, or JSON `{"2": "…", "1": "…"}`: the first is
    used for new hashes, the others only for what was hashed with them.
    """

    key_pepper: Secret = field(repr=False)
    password_pepper: Secret = field(repr=False)
    challenge_secret: Secret = field(repr=False)

    def __post_init__(self) -> None:
        for name in ("key_pepper", "challenge_secret"):
            if len(getattr(self, name).reveal()) < LEAST_SECRET_LENGTH:
                raise ValueError(f"{name} must have at least {LEAST_SECRET_LENGTH} characters")
        self.peppers()

    def peppers(self) -> dict[str, bytes]:
        """Returns the password peppers by id, the one in use first; raises ValueError when they cannot be used."""
        text = self.password_pepper.reveal()
        found = {"1": text}
        if text.startswith("{"):
            try:
                found = orjson.loads(text)
            except orjson.JSONDecodeError:
                raise ValueError("password_pepper is neither one text nor JSON") from None
        if not found or not all(
            isinstance(value, str) and len(value) >= LEAST_SECRET_LENGTH for value in found.values()
        ):
            raise ValueError(f"each password pepper must have at least {LEAST_SECRET_LENGTH} characters")
        return {name: value.encode() for name, value in found.items()}


@dataclass(frozen=True)
class PasswordConfig:
    """What a password costs.

    `bcrypt_highest_cost` is set after the cost was lowered, to what it was: failing sign-ins then still cost as much as
    for users who have not signed in since. `hash_queue` is how many passwords may wait for a core.
    """

    bcrypt_cost: int = 12
    bcrypt_highest_cost: int = 0
    hash_queue: int = 16

    def __post_init__(self) -> None:
        if not 4 <= self.bcrypt_cost <= 16 or not 0 <= self.bcrypt_highest_cost <= 16:
            raise ValueError("bcrypt_cost must be between 4 and 16")
        if self.hash_queue < 1:
            raise ValueError("hash_queue must be at least 1")


ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class BreachConfig:
    """Where breached passwords are known from.

    `breach_corpus` ships; `breach_folder` is what `sync-breached-passwords` mirrored, where there is one;
    `breach_range_url` is a server of the range protocol (`https://api.pwnedpasswords.com` is the best known), asked
    for each new password and each sign-in when it is set. When it is away the lists on disk decide, or, with
    `breach_fail_closed`, nobody gets a new password.
    """

    breach_corpus: Path = ROOT / "build" / "breached_passwords.bin"
    breach_folder: Path | None = None
    breach_range_url: str = ""
    breach_seconds: float = 1.0
    breach_fail_closed: bool = False

    def __post_init__(self) -> None:
        if self.breach_range_url and not self.breach_range_url.startswith(("https://", "http://")):
            raise ValueError("breach_range_url must be an http or https address")
        if not 0 < self.breach_seconds <= 10:
            raise ValueError("breach_seconds must be between 0 and 10")


@dataclass(frozen=True)
class SyncConfig:
    """What the command that mirrors breached passwords reads."""

    breach_folder: Path
    breach_range_url: str


@dataclass(frozen=True)
class BootstrapConfig:
    """What the bootstrap command reads."""

    postgres: PostgresConfig


@dataclass(frozen=True)
class RotationConfig:
    """What the command that rotates signing keys reads."""

    postgres: PostgresConfig
    vault: VaultConfig


@dataclass(frozen=True)
class AttemptConfig:
    """How many wrong passwords are too many.

    After `attempts_free` in a row the next waits for `attempts_wait_seconds`, twice as long each time, up to
    `attempts_longest_wait_seconds`; after `attempts_most` none is looked at until `attempts_forget_seconds` have passed
    without one. Each device that somebody has signed in on counts by itself. An address (or a /64) may be wrong
    `attempts_address_free` times, whomever it tries. Wrong passwords on `alarm_accounts` accounts within
    `alarm_seconds`, or on `alarm_network_accounts` from one network (/24, /48), raise an alarm. The store counts; where
    it takes longer than `attempts_store_seconds`, the database.
    """

    attempts_free: int = 10
    attempts_most: int = 100
    attempts_wait_seconds: int = 30
    attempts_longest_wait_seconds: int = 3600
    attempts_forget_seconds: int = 86_400
    attempts_address_free: int = 50
    attempts_store_seconds: float = 0.5
    alarm_seconds: int = 300
    alarm_accounts: int = 200
    alarm_network_accounts: int = 20

    def __post_init__(self) -> None:
        if not 1 <= self.attempts_free <= self.attempts_most <= 100:
            raise ValueError("attempts_free must be at least 1, and attempts_most no less and at most 100")
        if not 1 <= self.attempts_wait_seconds <= self.attempts_longest_wait_seconds <= self.attempts_forget_seconds:
            raise ValueError("attempts_wait_seconds, _longest_wait_seconds and _forget_seconds must not fall")
        if self.attempts_store_seconds <= 0:
            raise ValueError("attempts_store_seconds must be more than 0")
        if min(self.attempts_address_free, self.alarm_seconds, self.alarm_accounts, self.alarm_network_accounts) < 1:
            raise ValueError("attempts_address_free and what alarms count must be at least 1")


@dataclass(frozen=True)
class FederationConfig:
    """How providers of others are asked.

    `federation_private` lets them be on this machine, by http, or in a private network, and stand in for the well-known
    ones: for a stack on one machine alone, since publishers choose whom they name.
    """

    federation_seconds: float = 5.0
    federation_private: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.federation_seconds <= 30:
            raise ValueError("federation_seconds must be between 0 and 30")


@dataclass(frozen=True)
class PasskeyConfig:
    """Where passkeys work: `passkey_rp_id` is the host that they are made for, by default that of the public URL, and
    never another again, since no passkey would work then; `passkey_origins` are the origins of the pages, on that host
    or below.
    """

    passkey_rp_id: str = ""
    passkey_origins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """What auth reads from its environment.

    `issuer` names it in tokens; `public_url` leads staff to the dashboard; `places_database` tells where addresses are
    (MaxMind DB format, City schema; GeoLite2, DB-IP and others come in it), for mails about sign-ins from far away.
    """

    service: ServiceConfig
    secrets: SecretsConfig
    passwords: PasswordConfig
    breaches: BreachConfig
    attempts: AttemptConfig
    federation: FederationConfig
    passkeys: PasskeyConfig
    issuer: str
    public_url: str
    places_database: Path | None = None

    def __post_init__(self) -> None:
        self.relying_party()

    def relying_party(self) -> RelyingParty:
        """Returns where passkeys work; raises ValueError as `RelyingParty.of`."""
        return RelyingParty.of(self.public_url, self.passkeys.passkey_rp_id, self.passkeys.passkey_origins)
