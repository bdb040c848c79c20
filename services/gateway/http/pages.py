"""Owns the gateway's own pages: health, the OpenAPI document, its reading room, and a page for each problem."""

import hashlib
import html
import importlib.resources
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from libs import errors
from services.gateway.http.answer import Answer
from services.gateway.http.headers import HOSTED_PAGE_HEADERS, PAGE_HEADERS
from services.gateway.http.request import Request

_ROW = re.compile(r"\| `([a-z0-9_]+)` \| ([0-9]{3}) \| ([^|]+) \|")
_FORM = re.compile(rb"[A-Za-z0-9%&=+*._-]{0,7000}")
READY_PATH = "/readyz"
_DAY = "public, max-age=86400"
_MINUTE = "public, max-age=60"


@dataclass(frozen=True)
class Page:
    """A body that is the same for everybody."""

    body: bytes
    media_type: str
    caching: str = "no-store"
    tag: str = ""
    forms: bool = False
    """Whether a form may be posted to it, whose fields then become its query."""

    def response(self, request: Request) -> Answer:
        """Returns the answer; raises `method_not_allowed("method_not_allowed")`."""
        if request.method not in ("GET", "HEAD"):
            raise errors.method_not_allowed(
                "method_not_allowed", "This path allows GET, HEAD.", metadata={"allow": "GET, HEAD"}
            )
        headers = {"Content-Type": self.media_type, "Cache-Control": self.caching}
        if self.tag:
            headers["ETag"] = self.tag
            if request.headers.get("If-None-Match") == self.tag:
                return Answer(304, headers)
        if self.media_type.startswith("text/html"):
            headers.update(HOSTED_PAGE_HEADERS if self.forms else PAGE_HEADERS)
        return Answer(200, headers, self.body)


class Pages:
    """All pages, made once at start."""

    def __init__(self, openapi: Mapping[str, Any], problem_page: Path) -> None:
        ok = Page(b'{"status":"ok"}', "application/json")
        self._pages = {
            "/healthz": ok,
            READY_PATH: ok,
            "/openapi.json": _page(orjson.dumps(openapi), "application/json", _MINUTE),
            "/docs": _page(_READING_ROOM.encode(), "text/html; charset=utf-8", _MINUTE),
            **_assets(),
            **_problem_pages(problem_page.read_text(encoding="utf-8")),
        }

    def find(self, path: str) -> Page | None:
        """Returns the page at a path."""
        return self._pages.get(path)


def problem_rows(text: str) -> list[tuple[str, int, str]]:
    """Returns reason, HTTP status and explanation of each row of docs/problems.md."""
    return [(match[1], int(match[2]), match[3].strip()) for match in _ROW.finditer(text)]


def _assets() -> dict[str, Page]:
    own = importlib.resources.files(__package__) / "assets"
    kept = importlib.resources.files("swagger_ui") / "static"
    script, style, image = "text/javascript; charset=utf-8", "text/css; charset=utf-8", "image/png"
    return {
        "/docs/start.js": _page(own.joinpath("start.js").read_bytes(), script, _MINUTE),
        "/docs/page.css": _page(own.joinpath("page.css").read_bytes(), style, _MINUTE),
        "/docs/swagger-ui-bundle.js": _page(kept.joinpath("swagger-ui-bundle.js").read_bytes(), script, _DAY),
        "/docs/swagger-ui.css": _page(kept.joinpath("swagger-ui.css").read_bytes(), style, _DAY),
        "/oauth2/authorize": _hosted(own.joinpath("authorize.html").read_bytes()),
        "/oauth2/authorize.js": _page(own.joinpath("authorize.js").read_bytes(), script, _MINUTE),
        "/oauth2/logout": _hosted(own.joinpath("logout.html").read_bytes()),
        "/oauth2/logout.js": _page(own.joinpath("logout.js").read_bytes(), script, _MINUTE),
        "/oauth2/page.js": _page(own.joinpath("page.js").read_bytes(), script, _MINUTE),
        "/oauth2/page.css": _page(own.joinpath("sign_in.css").read_bytes(), style, _MINUTE),
        "/challenge/challenge.js": _page(own.joinpath("challenge.js").read_bytes(), script, _MINUTE),
        "/challenge/worker.js": _page(own.joinpath("worker.js").read_bytes(), script, _MINUTE),
        "/favicon.ico": _page(kept.joinpath("favicon-32x32.png").read_bytes(), image, _DAY),
    }


def _problem_pages(text: str) -> dict[str, Page]:
    entries: dict[str, str] = {}
    for reason, status, meaning in problem_rows(text):
        # A reason may come with more than one status, each with its own meaning.
        entries[reason] = f"{entries.get(reason, '')}<p>HTTP {status}. {_marked(meaning)}</p>"
    listed = "".join(
        f'<dt><a href="/problems/{reason}"><code>{reason}</code></a></dt><dd>{entry}</dd>'
        for reason, entry in entries.items()
    )
    pages = {"/problems": _html("Problems", f"<h1>Problems</h1><dl>{listed}</dl>")}
    for reason, entry in entries.items():
        content = f'<h1><code>{reason}</code></h1>{entry}<p><a href="/problems">All problems</a></p>'
        pages[f"/problems/{reason}"] = _html(reason, content)
    return pages


def _marked(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _html(title: str, content: str) -> Page:
    return _page(_FRAME.format(title=title, content=content).encode(), "text/html; charset=utf-8", _MINUTE)


def _hosted(body: bytes) -> Page:
    """Returns a page that clients of the OpenID provider send browsers to, by link or by form."""
    return replace(_page(body, "text/html; charset=utf-8", "no-store"), forms=True)


def reposted(path: str, body: bytes) -> Answer:
    """Sends a browser that posted a form to a page on to it with the form's fields as query (RFC 9110, 15.4.4).

    Raises `malformed("form_malformed")` for what is no form, or too long for an address.
    """
    if _FORM.fullmatch(body) is None:
        raise errors.malformed("form_malformed", "The form cannot be read.")
    return Answer(303, {"Location": f"{path}?{body.decode()}"})


def _page(body: bytes, media_type: str, caching: str) -> Page:
    return Page(body, media_type, caching, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


_FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · Gatefold</title>
<link rel="stylesheet" href="/docs/page.css">
</head>
<body><main>{content}</main></body>
</html>
"""

_READING_ROOM = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Gatefold API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="stylesheet" href="/docs/page.css">
</head>
<body>
<div id="api"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
