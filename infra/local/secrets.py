"""Owns the secrets of the one-machine stack: made once, kept in one file that only its owner reads."""

import base64
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from infra.local.private_file import write_private
from libs import migrate
from libs.config import Secret

SERVICES = ("gateway", "auth", "subscriber", "billing", "notify", "abuse")
WITH_KEYS = ("auth", "subscriber", "billing", "notify", "abuse")
"""Hold sealed data; the edge, which anybody reaches, holds no key to any."""
WITH_SCHEMA = ("gateway", *WITH_KEYS)


class Secrets:
    """Passwords, keys and peppers by name; what a newer version needs on top is added to what is there."""

    def __init__(self, path: Path, randomness: Callable[[int], bytes] = os.urandom) -> None:
        kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        made = {name: kept.get(name) or _text(randomness) for name in _names()}
        self._values = kept | made
        if self._values != kept:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_private(path, json.dumps(self._values, indent=1), lasting=True)

    def __getitem__(self, name: str) -> str:
        """Returns a secret's text."""
        return self._values[name]

    def secret(self, name: str) -> Secret:
        """Returns a secret that does not show itself."""
        return Secret(self._values[name])

    def database_passwords(self) -> dict[str, str]:
        """Returns the password of every database role, by the role's name."""
        return {role: self._values[f"postgres/{role}"] for role in _roles()}

    def caller_keys(self, service: str) -> str:
        """Returns, as JSON, the keys of all pairs that have this service on either side."""
        keys = {}
        for pair in _pairs():
            if service in pair:
                key = base64.b64encode(self._values[f"caller/{pair[0]}>{pair[1]}"].encode()).decode()
                keys[f"{pair[0]}>{pair[1]}"] = key
        return json.dumps(keys)


def _names() -> Iterable[str]:
    yield from ("postgres/admin", "valkey", "key_pepper", "password_pepper", "challenge_secret")
    yield from ("operator_password", "owner_password")
    yield from (f"postgres/{role}" for role in _roles())
    yield from (f"caller/{issuer}>{audience}" for issuer, audience in _pairs())


def _roles() -> list[str]:
    own = [role for service in WITH_SCHEMA for role in migrate.roles_of(service)]
    return [*own, *(f"{service}_keys" for service in WITH_KEYS), "keys_owner", "keys_backup"]


def _pairs() -> list[tuple[str, str]]:
    return [(issuer, audience) for issuer in SERVICES for audience in SERVICES if issuer != audience]


def _text(randomness: Callable[[int], bytes]) -> str:
    return base64.urlsafe_b64encode(randomness(32)).decode().rstrip("=")
