"""The mail sink with a real SMTP client."""

from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import aiohttp
import aiosmtplib
import pytest

from infra.local import mail
from infra.local.director import MailView


@pytest.fixture
async def sink(tmp_path: Path) -> AsyncIterator[tuple[int, str]]:
    async with mail.running(tmp_path / "mails") as (smtp, http):
        yield smtp, f"http://127.0.0.1:{http}"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def letter(to: str, subject: str, text: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Paper <mail@paper.example>"
    message["To"] = to
    message["Subject"] = subject
    message.set_content(text)
    return message


async def send(port: int, message: EmailMessage) -> None:
    await aiosmtplib.send(message, hostname="127.0.0.1", port=port, start_tls=False)


async def listed(session: aiohttp.ClientSession, url: str, **query: str) -> list[dict[str, Any]]:
    async with session.get(f"{url}/mails", params=query) as response:
        found: list[dict[str, Any]] = (await response.json())["data"]
    return found


async def test_mails_are_kept_newest_first(sink: Any, session: aiohttp.ClientSession) -> None:
    port, url = sink
    for number in range(3):
        await send(port, letter("ada@example.com", f"Mail {number}", f"Grüße, 你好 {number}\n"))
    mails = await listed(session, url)
    assert [item["subject"] for item in mails] == ["Mail 2", "Mail 1", "Mail 0"]
    assert mails[0]["text"] == "Grüße, 你好 2\n"
    assert mails[0]["to"] == "ada@example.com"


async def test_mails_are_chosen_by_receiver_and_subject(sink: Any, session: aiohttp.ClientSession) -> None:
    port, url = sink
    await send(port, letter("ada@example.com", "Confirm your address", "one"))
    await send(port, letter("ada@example.com", "Your receipt 1", "two"))
    await send(port, letter("bob@example.com", "Your receipt 2", "three"))
    found = await listed(session, url, to="Ada@example.com", subject="Your receipt")
    assert [item["text"] for item in found] == ["two\n"]


async def test_journey_waits_for_a_mail(sink: Any, session: aiohttp.ClientSession) -> None:
    port, url = sink
    view = MailView(session, url)
    with pytest.raises(TimeoutError):
        await view.wait("ada@example.com", "Hello", 0.05)
    await send(port, letter("ada@example.com", "Hello, Ada", "https://news.example/?token=abc"))
    assert "token=abc" in await view.wait("ada@example.com", "Hello", 10)


async def test_page_shows_text_and_runs_nothing(sink: Any, session: aiohttp.ClientSession) -> None:
    port, url = sink
    await send(
        port, letter("ada@example.com", "<b>Bold</b>", "See https://a.example/?a=1&b=2 <script>alert(1)</script>")
    )
    async with session.get(url) as response:
        page = await response.text()
        policy = response.headers["Content-Security-Policy"]
    assert "&lt;b&gt;Bold&lt;/b&gt;" in page
    assert '<a href="https://a.example/?a=1&amp;b=2" rel="noreferrer">' in page
    assert "<script>" not in page
    assert policy.startswith("default-src 'none'")


async def test_mails_outlive_a_restart(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    async with mail.running(tmp_path / "mails") as (smtp, _):
        await send(smtp, letter("ada@example.com", "Kept", "text"))
    async with mail.running(tmp_path / "mails") as (_, http):
        assert len(await listed(session, f"http://127.0.0.1:{http}")) == 1
