"""Owns the mail sink: takes every mail by SMTP, keeps it as a file, and shows it over HTTP."""

import asyncio
import email
import email.policy
import json
import mailbox
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from html import escape
from pathlib import Path
from typing import Any

from aiohttp import web
from aiosmtpd.smtp import SMTP, Envelope, Session

MOST_BYTES = 4 << 20
_STYLE = (
    "body{margin:0 auto;max-width:42rem;padding:1rem;font:17px/1.5 system-ui,sans-serif;color:#1a1f36}"
    "article{border-top:1px solid #c1c9d2;padding:.75rem 0}h2{font-size:1.1rem;margin:0}"
    "small{color:#4f566b}pre{white-space:pre-wrap;overflow-wrap:anywhere;font:inherit}"
)


class Sink:
    """Mails in a Maildir, newest last by their order of arrival."""

    def __init__(self, directory: Path) -> None:
        self._box = mailbox.Maildir(directory, create=True)
        self._arrived = asyncio.Event()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keeps a mail before it is acknowledged (aiosmtpd's handler)."""
        message = mailbox.MaildirMessage(envelope.original_content or b"")
        message["X-Envelope-To"] = ", ".join(envelope.rcpt_tos)
        self._box.add(message)
        self._arrived.set()
        return "250 kept"

    def all(self, to: str = "", subject: str = "") -> list[dict[str, Any]]:
        """Returns the mails to an address whose subject begins so, newest first."""
        found = []
        for key, kept in sorted(self._box.iteritems(), key=lambda item: (item[1].get_date(), item[0]), reverse=True):
            mail = email.message_from_bytes(kept.as_bytes(), policy=email.policy.default)
            assert isinstance(mail, EmailMessage)
            receivers = str(mail["X-Envelope-To"])
            if to.lower() in receivers.lower() and str(mail["Subject"]).startswith(subject):
                found.append(_shown(key, mail, receivers))
        return found

    async def wait(self, to: str, subject: str, seconds: float) -> list[dict[str, Any]]:
        """Returns as `all` does, once there is at least one; empty when none came in time."""
        try:
            async with asyncio.timeout(seconds):
                while not (found := self.all(to, subject)):
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return []
        return found


def _shown(key: str, mail: EmailMessage, receivers: str) -> dict[str, Any]:
    body = mail.get_body(("plain", "html"))
    return {
        "id": key,
        "to": receivers,
        "from": str(mail["From"]),
        "subject": str(mail["Subject"]),
        "date": str(mail["Date"]),
        "message_id": str(mail["Message-ID"]),
        "text": "" if body is None else body.get_content(),
    }


class View:
    """Shows mails: `/` for people, `/mails` for programs."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def app(self) -> web.Application:
        """Returns the application."""
        app = web.Application()
        app.router.add_get("/", self._page)
        app.router.add_get("/mails", self._list)
        return app

    async def _list(self, request: web.Request) -> web.Response:
        """`to` and `subject` choose; `wait` is how many seconds to wait for the first."""
        query = request.query
        seconds = min(float(query.get("wait", "0")), 60.0)
        found = await self._sink.wait(query.get("to", ""), query.get("subject", ""), seconds)
        return web.json_response({"data": found})

    async def _page(self, request: web.Request) -> web.Response:
        mails = "".join(_article(mail) for mail in self._sink.all()) or "<p>No mail yet.</p>"
        head = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        )
        page = f"{head}<title>Mails</title><style>{_STYLE}</style><main><h1>Mails</h1>{mails}</main></html>"
        # What a mail says is shown, never run.
        headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return web.Response(text=page, content_type="text/html", headers=headers)


def _article(mail: dict[str, Any]) -> str:
    words = [_linked(word) for word in mail["text"].split(" ")]
    head = f"<h2>{escape(mail['subject'])}</h2><small>to {escape(mail['to'])}, {escape(mail['date'])}</small>"
    return f"<article>{head}<pre>{' '.join(words)}</pre></article>"


def _linked(word: str) -> str:
    lines = []
    for line in word.split("\n"):
        text = escape(line)
        link = line.startswith(("https://", "http://"))
        lines.append(f'<a href="{text}" rel="noreferrer">{text}</a>' if link else text)
    return "\n".join(lines)


@asynccontextmanager
async def running(directory: Path, *, smtp_port: int = 0, http_port: int = 0) -> AsyncIterator[tuple[int, int]]:
    """Serves on loopback within the block; yields the two ports."""
    sink = Sink(directory)
    loop = asyncio.get_running_loop()
    smtp = await loop.create_server(
        lambda: SMTP(sink, hostname="localhost", enable_SMTPUTF8=True, data_size_limit=MOST_BYTES, loop=loop),
        "127.0.0.1",
        smtp_port,
    )
    runner = web.AppRunner(View(sink).app(), access_log=None, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", http_port).start()
        yield smtp.sockets[0].getsockname()[1], runner.addresses[0][1]
    finally:
        smtp.close()
        await runner.cleanup()


def main(directory: Path, smtp_port: int, http_port: int) -> int:
    """Serves until SIGINT or SIGTERM."""

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with running(directory, smtp_port=smtp_port, http_port=http_port) as ports:
            print(json.dumps({"message": "mail sink listens", "smtp": ports[0], "http": ports[1]}), flush=True)
            await stop.wait()

    asyncio.run(serve())
    return 0
