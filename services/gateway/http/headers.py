"""Owns the headers that every answer carries."""

from collections.abc import Mapping

from services.gateway.http.answer import Answer
from services.gateway.http.hardening import VERSION

API_CSP = "default-src 'none'; frame-ancestors 'none'"
PAGE_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": PAGE_CSP,
    # No window that opened a page, or was opened by it, gets hold of it.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}
HOSTED_PAGE_HEADERS: Mapping[str, str] = {
    **PAGE_HEADERS,
    # Applications may have them opened in a window of their own, and wait for it to come back.
    "Cross-Origin-Opener-Policy": "unsafe-none",
}


_USUAL: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": API_CSP,
    # Says nothing of what scripts ask by CORS; other sites' pages cannot embed an answer.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Vary": "Origin",
}


_OF_USUAL = frozenset(_USUAL)


class StandardHeaders:
    """Adds what browsers and clients are told with every answer."""

    def __init__(self, hsts_seconds: int) -> None:
        fixed = {
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Gatefold-Version": VERSION,
            # In place of the server software's name and version.
            "Server": "gatefold",
        }
        if hsts_seconds > 0:
            fixed["Strict-Transport-Security"] = f"max-age={hsts_seconds}; includeSubDomains"
        self._fixed = "".join(f"\r\n{name}: {value}" for name, value in fixed.items())
        usual = "".join(f"\r\n{name}: {value}" for name, value in _USUAL.items())
        self._usual = self._fixed + usual

    def add(self, answer: Answer, request_id: str) -> None:
        """Adds to the headers of an answer; what the answer says itself goes before the standard.

        Answers are never stored and pages load nothing unless they say otherwise.
        """
        headers = answer.headers
        headers["X-Request-Id"] = request_id
        if _OF_USUAL.isdisjoint(headers):
            answer.standard = self._usual
        else:
            answer.standard = self._fixed
            answer.headers = {**_USUAL, **headers}
