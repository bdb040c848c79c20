"""Owns the gateway's own TLS: modern settings, and certificates that are replaced while it runs."""

import ssl
from functools import partial
from pathlib import Path

from prometheus_client import Counter

from libs.reloaded import Reloaded
from libs.telemetry import Telemetry

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption alone (Mozilla's intermediate list without DHE)."""

Certificates = Reloaded[ssl.SSLContext]
"""The context of new connections; connections that are open keep the one they began with."""
Pair = tuple[bytes, bytes]
"""Contents of a key's file and of its chain's."""
Pairs = Reloaded[Pair]


def certificates(files: tuple[Path, Path] | None, telemetry: Telemetry) -> Certificates | None:
    """Returns what terminates TLS with chain and key, where they are stated; raises OSError for unusable ones."""
    return None if files is None else Reloaded(files, partial(_context, *files), _changes(telemetry), telemetry)


def pairs(files: tuple[Path, Path] | None, telemetry: Telemetry) -> Pairs | None:
    """Returns the same for gRPC, which makes a context of its own; raises OSError for unusable ones."""
    return None if files is None else Reloaded(files, partial(_pair, *files), _changes(telemetry), telemetry)


def _changes(telemetry: Telemetry) -> Counter:
    return telemetry.counter(
        "gateway_certificate_changes", "Changed certificate files, by whether they could be used", ("result",)
    )


def _pair(certificate: Path, key: Path) -> Pair:
    # gRPC takes what does not fit together and then fails every handshake; this raises instead.
    _context(certificate, key)
    return key.read_bytes(), certificate.read_bytes()


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    # The key of stateless tickets would outlive the forward secrecy of all that it resumes.
    context.options |= ssl.OP_NO_TICKET
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key)
    return context
