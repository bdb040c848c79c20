"""Owns the gateway's configuration."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from libs import sockets
from libs.caller import CallerConfig
from libs.config import Secret
from libs.grpc_client import GrpcConfig
from libs.postgres import PostgresConfig
from libs.redis_client import RedisConfig
from services.gateway.domain.bounds import BodyBounds, ConnectionBounds, LoadBounds

BITS = (8, 24)
"""Least and most that may be asked for."""
ROOT = Path(__file__).resolve().parents[2]
_YEAR_SECONDS = 31_536_000


@dataclass(frozen=True)
class CommandConfig:
    """What the commands on versions read."""

    postgres: PostgresConfig


@dataclass(frozen=True)
class GatewayConfig:
    """Where the gateway listens, whom it trusts, and its limits."""

    grpc: GrpcConfig
    caller: CallerConfig
    redis: RedisConfig
    issuer: str
    """`iss` of access tokens that are taken."""
    connections: ConnectionBounds
    load: LoadBounds
    bodies: BodyBounds
    key_pepper: Secret = field(repr=False)
    """Key of the HMAC that API keys are looked up by; auth has the same."""
    http_listen: str = "127.0.0.1:8080"
    otlp_listen: str | None = None
    """Where logs are taken by OTLP/gRPC as well, `host:port`, with TLS as HTTP has it; nowhere unless it is said."""
    descriptors: Path = ROOT / "gen" / "descriptors.binpb"
    problem_page: Path = ROOT / "docs" / "problems.md"
    problem_base: str = "/problems/"
    """What the `type` of a problem begins with; the reason follows."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks whose X-Forwarded-For is believed, `10.0.0.0/8`."""
    hsts_seconds: int | None = None
    """Strict-Transport-Security for so long, 0 for never; a year where this process terminates TLS, else none."""
    http_certificate: Path | None = None
    """PEM chain; with `http_key` TLS is terminated here, and both are read anew when they change."""
    http_key: Path | None = None
    http_proxy_protocol: bool = False
    """Every connection comes from a trusted proxy and begins with a PROXY header of version 2."""
    http_shared_port: bool = False
    """Other processes may listen on the same port (SO_REUSEPORT)."""
    rate_redis_url: Secret | None = field(default=None, repr=False)
    """Store of rate limits, a primary with replicas and no cluster; the common one when none is given."""
    rate_quotas: str = "{}"
    """JSON that replaces quotas: `{"strict.address": [30, 60]}` is 30 units in 60 seconds; docs/rate-limits.md."""
    rate_store_away: str = "{}"
    """JSON by rate class, what holds while the store is away: `local` (unless said otherwise), `open` or `closed`."""
    rate_store_seconds: float = 0.02
    """How long a rate limit's store may take before this process decides by itself."""
    postgres_app_dsn: Secret | None = field(default=None, repr=False)
    postgres_jobs_dsn: Secret | None = field(default=None, repr=False)
    """Without both, rules and limits are not served here; what is enforced then comes from the stream alone."""
    postgres_pool_size: int = 2
    postgres_statement_cache_size: int = 256
    bundle_file: Path | None = None
    """Where the last known good version is kept for a start without any store; its folder is the gateway's own."""

    places_database: Path | None = None
    """MaxMind DB of the City or Country schema: countries of addresses."""
    networks_database: Path | None = None
    """MaxMind DB of the ASN schema: operators of addresses."""
    challenge_bits: int = 17
    """Zero bits that a proof of work has to show: each one more doubles the work; 17 are a second on a telephone."""
    clearance_seconds: int = 1800
    """How long a proof of work lasts."""

    def __post_init__(self) -> None:
        sockets.split(self.http_listen)
        if self.otlp_listen is not None:
            sockets.split(self.otlp_listen)
        for network in self.trusted_proxies:
            ipaddress.ip_network(network)
        if (self.http_certificate is None) != (self.http_key is None):
            raise ValueError("http_certificate and http_key must be set together")
        if self.http_proxy_protocol and not self.trusted_proxies:
            raise ValueError("http_proxy_protocol needs trusted_proxies: nobody else may say who a client is")
        self.quotas()
        self.away()
        if (self.postgres_app_dsn is None) != (self.postgres_jobs_dsn is None):
            raise ValueError("postgres_app_dsn and postgres_jobs_dsn must be set together")
        if self.postgres_pool_size < 1:
            raise ValueError("postgres_pool_size must be at least 1")
        least, most = BITS
        if not least <= self.challenge_bits <= most or self.clearance_seconds <= 0:
            raise ValueError(f"challenge_bits is {least} to {most}, clearance_seconds more than nothing")

    def away(self) -> dict[str, str]:
        """Returns what holds without the store, by rate class; raises ValueError when it cannot be read."""
        document = _object("rate_store_away", self.rate_store_away)
        return {name: _away(name, value) for name, value in document.items()}

    def pem(self) -> tuple[Path, Path] | None:
        """Returns the files of certificate and key, where TLS is terminated here."""
        if self.http_certificate is None or self.http_key is None:
            return None
        return self.http_certificate, self.http_key

    def hsts(self) -> int:
        """Returns for how many seconds browsers are told to use TLS alone; 0 for not at all."""
        if self.hsts_seconds is None:
            return _YEAR_SECONDS if self.http_certificate else 0
        return self.hsts_seconds

    def quotas(self) -> dict[str, tuple[int, int]]:
        """Returns the quotas that replace defaults; raises ValueError when they cannot be read."""
        return {name: _quota(name, value) for name, value in _object("rate_quotas", self.rate_quotas).items()}


def _object(name: str, text: str) -> dict[str, object]:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError(f"{name} must be JSON") from None
    if not isinstance(document, dict):
        raise ValueError(f"{name} must be a JSON object")  # noqa: TRY004 — a rule of the value's
    return document


def _away(name: str, value: object) -> str:
    if value in ("local", "open", "closed"):
        return str(value)
    raise ValueError(f"without its store the class {name} must be local, open or closed")


def _quota(name: str, value: object) -> tuple[int, int]:
    match value:
        case [int(amount), int(seconds)] if amount > 0 and seconds > 0:
            return amount, seconds
    raise ValueError(f"the quota {name} must be [units, seconds]")
