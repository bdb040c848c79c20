"""Owns the gateway's configuration."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from libs import sockets
from libs.caller import CallerConfig
from libs.config import Secret
from libs.grpc_client import GrpcConfig
from libs.redis_client import RedisConfig

BITS = (8, 24)
"""Least and most that may be asked for."""
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class GatewayConfig:
    """Where the gateway listens, whom it trusts, and its limits."""

    grpc: GrpcConfig
    caller: CallerConfig
    redis: RedisConfig
    issuer: str
    """`iss` of access tokens that are taken."""
    key_pepper: Secret = field(repr=False)
    """Key of the HMAC that API keys are looked up by; auth has the same."""
    http_listen: str = "127.0.0.1:8080"
    descriptors: Path = ROOT / "gen" / "descriptors.binpb"
    problem_page: Path = ROOT / "docs" / "problems.md"
    problem_base: str = "/problems/"
    """What the `type` of a problem begins with; the reason follows."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks whose X-Forwarded-For is believed, `10.0.0.0/8`."""
    hsts_seconds: int = 0
    """Strict-Transport-Security for so long; 0 sends none (plain HTTP on one machine)."""
    body_bytes: int = 256 * 1024
    """Greatest body of endpoints whose policy states none."""
    body_seconds: float = 30.0
    """How long a client may take to send a body."""
    rate_quotas: str = "{}"
    """JSON that replaces quotas: `{"strict.address": [30, 60]}` is 30 units in 60 seconds."""
    rate_store_seconds: float = 0.02
    """How long a rate limit's store may take before this process decides by itself."""

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
        for network in self.trusted_proxies:
            ipaddress.ip_network(network)
        self.quotas()
        least, most = BITS
        if not least <= self.challenge_bits <= most or self.clearance_seconds <= 0:
            raise ValueError(f"challenge_bits is {least} to {most}, clearance_seconds more than nothing")

    def quotas(self) -> dict[str, tuple[int, int]]:
        """Returns the quotas that replace defaults; raises ValueError when they cannot be read."""
        try:
            document = orjson.loads(self.rate_quotas)
        except orjson.JSONDecodeError:
            raise ValueError("rate_quotas must be JSON") from None
        if not isinstance(document, dict):
            raise ValueError("rate_quotas must be a JSON object")  # noqa: TRY004 — a rule of the value's
        return {name: _quota(name, value) for name, value in document.items()}


def _quota(name: str, value: object) -> tuple[int, int]:
    match value:
        case [int(amount), int(seconds)] if amount > 0 and seconds > 0:
            return amount, seconds
    raise ValueError(f"the quota {name} must be [units, seconds]")
