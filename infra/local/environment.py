"""Owns what each service of the one-machine stack is told: its environment, and nobody else's secrets."""

import json
from collections.abc import Mapping

from infra.local.postgres import PostgresServer
from infra.local.secrets import SERVICES, WITH_KEYS, WITH_SCHEMA, Secrets
from infra.local.settings import HOST, Place, Ports
from infra.local.valkey import ValkeyServer

DATABASE = "gatefold"
KEYS_DATABASE = "gatefold_keys"
MAIL_FROM = "Gatefold <mail@gatefold.example>"


class Environments:
    """Builds the environment of each service."""

    def __init__(
        self,
        place: Place,
        ports: Ports,
        secrets: Secrets,
        postgres: PostgresServer,
        valkey: ValkeyServer,
        bcrypt_cost: int,
    ) -> None:
        self._place = place
        self._ports = ports
        self._secrets = secrets
        self._postgres = postgres
        self._valkey = valkey
        self._bcrypt_cost = bcrypt_cost

    def of(self, service: str, extra: Mapping[str, str]) -> dict[str, str]:
        """Returns a service's environment; `extra` replaces and adds."""
        own = {
            "gateway": self._gateway,
            "auth": self._auth,
            "subscriber": self._subscriber,
            "billing": self._billing,
            "notify": self._notify,
            "abuse": self._abuse,
        }[service]()
        stores = self._databases(service) if service in WITH_SCHEMA else {}
        keys = self._keys(service) if service in WITH_KEYS else {}
        return {**self._everyone(service), **stores, **keys, **own, **extra}

    def gateway(self, name: str) -> dict[str, str]:
        """Returns what is each gateway's own where several share a port."""
        return {
            "GATEFOLD_HTTP_SHARED_PORT": "true",
            "GATEFOLD_LISTEN": self._place.socket(name),
            "GATEFOLD_METRICS_LISTEN": f"unix:{self._place.admin_socket(name)}",
        }

    def dsn(self, role: str, database: str = DATABASE) -> str:
        """Returns a role's DSN."""
        return self._postgres.dsn(role, self._secrets.secret(f"postgres/{role}"), database).reveal()

    def _everyone(self, service: str) -> dict[str, str]:
        peers = {name: self._place.socket(name) for name in SERVICES if name != "gateway"}
        return {
            "GATEFOLD_LISTEN": self._place.socket(service),
            "GATEFOLD_METRICS_LISTEN": f"unix:{self._place.admin_socket(service)}",
            "GATEFOLD_REDIS_URL": self._valkey.url().reveal(),
            "GATEFOLD_CALLER_KEYS": self._secrets.caller_keys(service),
            "GATEFOLD_PEERS": json.dumps(peers),
        }

    def _databases(self, service: str) -> dict[str, str]:
        return {
            "GATEFOLD_POSTGRES_APP_DSN": self.dsn(f"{service}_app"),
            "GATEFOLD_POSTGRES_JOBS_DSN": self.dsn(f"{service}_jobs"),
        }

    def _keys(self, service: str) -> dict[str, str]:
        return {
            "GATEFOLD_KEYS_DSN": self.dsn(f"{service}_keys", KEYS_DATABASE),
            "GATEFOLD_KEY_FILE": str(self._place.key_file),
        }

    def _gateway(self) -> dict[str, str]:
        return {
            "GATEFOLD_HTTP_LISTEN": f"{HOST}:{self._ports.http}",
            "GATEFOLD_ISSUER": self._ports.gateway_url,
            "GATEFOLD_KEY_PEPPER": self._secrets["key_pepper"],
            "GATEFOLD_BUNDLE_FILE": str(self._place.bundle),
            # A machine that does all at once is late now and then, and nobody is served better by a refusal.
            "GATEFOLD_LAG_LOW_SECONDS": "10",
            "GATEFOLD_LAG_NORMAL_SECONDS": "20",
            "GATEFOLD_LAG_HIGH_SECONDS": "30",
        }

    def _auth(self) -> dict[str, str]:
        return {
            "GATEFOLD_ISSUER": self._ports.gateway_url,
            "GATEFOLD_PUBLIC_URL": self._ports.gateway_url,
            # Browsers make passkeys for a name, and for no number.
            "GATEFOLD_PASSKEY_RP_ID": "localhost",
            "GATEFOLD_PASSKEY_ORIGINS": f"http://localhost:{self._ports.http}",
            "GATEFOLD_KEY_PEPPER": self._secrets["key_pepper"],
            "GATEFOLD_PASSWORD_PEPPER": self._secrets["password_pepper"],
            "GATEFOLD_CHALLENGE_SECRET": self._secrets["challenge_secret"],
            "GATEFOLD_BCRYPT_COST": str(self._bcrypt_cost),
            # Providers that stand in for others are on this machine, too.
            "GATEFOLD_FEDERATION_PRIVATE": "true",
        }

    def _subscriber(self) -> dict[str, str]:
        return {
            "GATEFOLD_OBJECT_STORE_URL": self._place.objects.as_uri(),
            "GATEFOLD_KEY_PEPPER": self._secrets["key_pepper"],
        }

    def _billing(self) -> dict[str, str]:
        return {
            "GATEFOLD_STRIPE_API_BASE": self._ports.stripe_url,
            "GATEFOLD_KEY_PEPPER": self._secrets["key_pepper"],
        }

    def _notify(self) -> dict[str, str]:
        return {
            "GATEFOLD_SMTP_HOST": HOST,
            "GATEFOLD_SMTP_PORT": str(self._ports.smtp),
            "GATEFOLD_SMTP_START_TLS": "false",
            "GATEFOLD_MAIL_FROM": MAIL_FROM,
            # Publishers' servers are on this machine, too.
            "GATEFOLD_WEBHOOK_ALLOW_PRIVATE": "true",
        }

    def _abuse(self) -> dict[str, str]:
        return {
            "GATEFOLD_OBJECT_STORE_URL": (self._place.objects / "abuse").as_uri(),
            "GATEFOLD_KEY_PEPPER": self._secrets["key_pepper"],
        }
