"""Owns the certificate files of a service: its own name, its key, and whom it trusts."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tls:
    """PEM files: the CA that signs all services, this service's certificate (its name as DNS SAN) and key."""

    ca: Path
    certificate: Path
    key: Path

    def read(self) -> tuple[bytes, bytes, bytes]:
        """Returns the contents: CA, certificate, key."""
        return self.ca.read_bytes(), self.certificate.read_bytes(), self.key.read_bytes()
