"""Owns the gateway's own TLS: modern settings, and certificates that are replaced while it runs."""

import ssl
from pathlib import Path

from libs.telemetry import Telemetry
from services.gateway.http.caches import Monotonic

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption alone (Mozilla's intermediate list without DHE)."""
LOOK_SECONDS = 5.0
"""How often at most the files are looked at."""

_Stamp = tuple[tuple[int, int, int], ...]


class Certificates:
    """The context of new connections; connections that are open keep the one they began with."""

    def __init__(self, certificate: Path, key: Path, *, monotonic: Monotonic, telemetry: Telemetry) -> None:
        """Raises OSError or ssl.SSLError for files that cannot be used."""
        self._files = (certificate, key)
        self._monotonic = monotonic
        self._log = telemetry.logger("certificates")
        self._changes = telemetry.counter(
            "gateway_certificate_changes", "Changed certificate files, by whether they could be used", ("result",)
        )
        self._seen = self._stamp()
        self._context = _context(certificate, key)
        self._looked_at = monotonic()

    def context(self) -> ssl.SSLContext:
        """Returns the context for a new connection; files that changed and cannot be used leave the one before."""
        now = self._monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._look()
        return self._context

    def _look(self) -> None:
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return
            self._context = _context(*self._files)
        except (OSError, ssl.SSLError) as error:
            # Certificate and key are two files: in between they do not fit each other, and the next look finds both.
            self._changes.labels("unusable").inc()
            self._log.warning("the certificate's files cannot be used", extra={"why": type(error).__name__})
            return
        self._seen = stamp
        self._changes.labels("taken").inc()
        self._log.info("a new certificate is used")

    def _stamp(self) -> _Stamp:
        # Mounted secrets change by a link that is swapped, which stat follows.
        found = [path.stat() for path in self._files]
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in found)


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
