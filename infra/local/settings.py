"""Owns what can be set about the one-machine stack, and where its files and ports are."""

import json
import random
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from pathlib import Path

from infra.local.placement import private_directory, socket_directory
from infra.local.private_file import write_private
from infra.local.secrets import SERVICES

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
_MOST_GATEWAYS = 64
_PORTS = range(15_000, 32_000)
_LONGEST_SOCKET = max(len(name) for name in SERVICES) * "x" + "-admin.sock"


@dataclass(frozen=True)
class StackConfig:
    """GATEFOLD_STATE_DIR, GATEFOLD_HTTP_PORT, …: a port that is taken is replaced by a free one."""

    state_dir: Path = ROOT / ".state"
    http_port: int = 8080
    stripe_port: int = 12111
    mail_port: int = 8025
    smtp_port: int = 1025
    bcrypt_cost: int = 12
    gateways: int = 1
    """Processes that share the API's port, one for each core at most."""

    def __post_init__(self) -> None:
        if not 1 <= self.gateways <= _MOST_GATEWAYS:
            raise ValueError(f"gateways must be between 1 and {_MOST_GATEWAYS}")

    def gateway_names(self) -> tuple[str, ...]:
        """Returns what the gateways are called: `gateway`, `gateway-2`, …"""
        return ("gateway", *(f"gateway-{number}" for number in range(2, self.gateways + 1)))


@dataclass(frozen=True)
class Place:
    """Where the stack's files are."""

    state: Path

    def make(self) -> None:
        """Makes the directories; the stores' user may pass through, and list nothing."""
        private_directory(self.state)
        for private in (self.run, self.logs, self.objects):
            private.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def run(self) -> Path:
        """Sockets of services; somewhere short when the state directory's path is too long for one."""
        return socket_directory(self.state / "run", _LONGEST_SOCKET)

    @property
    def logs(self) -> Path:
        """One log for each program."""
        return self.state / "logs"

    @property
    def objects(self) -> Path:
        """Files of imports."""
        return self.state / "objects"

    @property
    def mails(self) -> Path:
        """Mails that were sent."""
        return self.state / "mails"

    @property
    def secrets(self) -> Path:
        """All secrets."""
        return self.state / "secrets.json"

    @property
    def key_file(self) -> Path:
        """What wraps account keys."""
        return self.state / "provider.key"

    @property
    def bundle(self) -> Path:
        """The last version of rules and limits that the gateway enforced."""
        return self.state / "gateway" / "bundle"

    @property
    def stripe(self) -> Path:
        """The Stripe simulator's memory."""
        return self.state / "stripe.sqlite"

    @property
    def ports(self) -> Path:
        """The ports of the last start."""
        return self.state / "ports.json"

    @property
    def bootstrap_token(self) -> Path:
        """The one-time token for the first operator, until it is used."""
        return self.run / "bootstrap-token"

    @property
    def publication(self) -> Path:
        """What was seeded, credentials included."""
        return self.state / "publication.json"

    @property
    def endpoints(self) -> Path:
        """Where everything is, for tests."""
        return self.state / "endpoints.json"

    @property
    def status(self) -> Path:
        """What the supervisor knows."""
        return self.state / "status.json"

    @property
    def lock(self) -> Path:
        """Held while the stack runs."""
        return self.state / "lock"

    def socket(self, service: str) -> str:
        """Returns where a service takes gRPC calls."""
        return f"unix:{self.run / service}.sock"

    def admin_socket(self, service: str) -> Path:
        """Returns where a service answers /readyz."""
        return self.run / f"{service}-admin.sock"


@dataclass(frozen=True)
class Ports:
    """Ports on loopback."""

    http: int
    stripe: int
    mail: int
    smtp: int

    @property
    def gateway_url(self) -> str:
        """Where the API is."""
        return f"http://{HOST}:{self.http}"

    @property
    def stripe_url(self) -> str:
        """Where the Stripe simulator is."""
        return f"http://{HOST}:{self.stripe}"

    @property
    def mail_url(self) -> str:
        """Where mails can be read."""
        return f"http://{HOST}:{self.mail}"


def choose_ports(settings: StackConfig, place: Place, say: Callable[[str], None]) -> Ports:
    """Returns the ports of the last start, or those asked for, where they are free; says which are not."""
    before: dict[str, int] = json.loads(place.ports.read_text()) if place.ports.exists() else {}
    chosen: dict[str, int] = {}
    for field in fields(Ports):
        asked = int(getattr(settings, f"{field.name}_port"))
        # A port that was replaced stays what it became, until another is asked for.
        wanted = before.get(field.name, asked) if before.get(f"{field.name}_asked", asked) == asked else asked
        fits = wanted and wanted not in chosen.values() and _is_free(wanted)
        port = chosen[field.name] = wanted if fits else free_port(but=chosen.values())
        if wanted not in (0, port):
            say(f"{field.name}: port {wanted} is taken, using {port}")
        chosen[f"{field.name}_asked"] = asked
    write_private(place.ports, json.dumps(chosen))
    return kept_ports(place)


def kept_ports(place: Place) -> Ports:
    """Returns the ports of the last start."""
    kept = json.loads(place.ports.read_text())
    return Ports(**{field.name: kept[field.name] for field in fields(Ports)})


def free_port(but: Collection[int] = ()) -> int:
    """Returns a port that nobody listens on.

    It is one that the kernel gives to nobody unasked (RFC 6056 leaves those to it from 32768 on), and chosen at random,
    so that stacks which start side by side hardly ever choose the same.
    """
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        if port not in but and _is_free(port):
            return port
    raise OSError(f"no free port on {HOST}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
