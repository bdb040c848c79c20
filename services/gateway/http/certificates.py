"""Owns the gateway's own TLS: modern settings, and certificates that are replaced while it runs."""

import ssl
from functools import partial
from pathlib import Path

from libs.reloaded import Reloaded
from libs.telemetry import Telemetry

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption alone (Mozilla's intermediate list without DHE)."""

Certificates = Reloaded[ssl.SSLContext]
"""The context of new connections; connections that are open keep the one they began with."""


def certificates(files: tuple[Path, Path] | None, telemetry: Telemetry) -> Certificates | None:
    """Returns what terminates TLS with chain and key, where they are stated; raises OSError for unusable ones."""
    if files is None:
        return None
    certificate, key = files
    changes = telemetry.counter(
        "gateway_certificate_changes", "Changed certificate files, by whether they could be used", ("result",)
    )
    make = partial(_context, certificate, key)
    return Reloaded(files, make, changes, telemetry)


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
