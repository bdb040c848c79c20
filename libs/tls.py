"""Owns the certificate files of a service: its own name, its key, and whom it trusts."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from libs.reloaded import Reloaded
from libs.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Pem:
    """Contents of certificate files."""

    ca: bytes
    certificate: bytes
    key: bytes


@dataclass(frozen=True)
class Tls:
    """PEM files: the CA that signs all services, this service's certificate (its name as DNS SAN) and key."""

    ca: Path
    certificate: Path
    key: Path

    def watched(self, telemetry: Telemetry) -> Reloaded[Pem]:
        """Returns what hands out the newest contents that can be used; raises OSError when there are none yet."""
        changes = telemetry.counter(
            "service_certificate_changes",
            "Changed certificate files between services, by whether they could be used",
            ("result",),
        )
        return Reloaded((self.ca, self.certificate, self.key), self._read, changes, telemetry)

    def _read(self) -> Pem:
        # gRPC takes what does not fit together and then fails every handshake; this raises instead.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        context.load_verify_locations(self.ca)
        return Pem(self.ca.read_bytes(), self.certificate.read_bytes(), self.key.read_bytes())
