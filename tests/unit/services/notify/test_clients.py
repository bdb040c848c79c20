"""Letters as they are rendered, and which addresses a webhook may reach."""

from datetime import UTC, datetime

import pytest

from services.auth.domain.challenge import LIFETIMES
from services.notify.clients import TEMPLATES, Letter, Mailer, is_public_address

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CHALLENGE = {
    "name": "",
    "publication": "The Daily",
    "link": "https://daily.example/x?token=abc",
    "expires_at": NOW,
    "code": "",
    "details": {},
}
RECEIPT = {
    "name": "Ada",
    "publication": "The Daily",
    "number": "2026-000001",
    "description": "Digital, monthly",
    "total": "EUR 9.00",
    "period_end": NOW,
}


@pytest.fixture
def mailer() -> Mailer:
    return Mailer("127.0.0.1", 25, "The Daily <mail@daily.example>", username="", password=None, start_tls=False)


def letter(template: str, values: dict[str, object]) -> Letter:
    return Letter("<mail_1@daily.example>", "ada@example.com", template, values)


def test_every_text_has_its_html() -> None:
    texts = {path.stem for path in TEMPLATES.glob("*.txt")}
    pages = {path.stem for path in TEMPLATES.glob("*.html")} - {"layout", "button"}
    assert texts == pages == {"details", "receipt", *LIFETIMES}


LINKS = [
    "verify_registration",
    "invite_member",
    "reset_password",
    "magic_link",
    "change_email",
    "revert_email",
    "unlock",
]


@pytest.mark.parametrize("template", LINKS)
def test_a_challenge_says_its_link_in_text_and_html(mailer: Mailer, template: str) -> None:
    message = mailer.render(letter(template, CHALLENGE), NOW)
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    assert CHALLENGE["link"] in text.get_content()
    assert CHALLENGE["link"] in html.get_content()


NOTICES = [
    "password_changed",
    "new_device",
    "factor_added",
    "factor_removed",
    "recovery_code_used",
    "email_changed",
    "session_ended",
    "sign_in_locked",
    "identity_added",
    "identity_removed",
]


@pytest.mark.parametrize("template", [*NOTICES, "email_code"])
def test_a_notice_says_where_and_what_to_do_if_it_was_not_you(mailer: Mailer, template: str) -> None:
    values = {**CHALLENGE, "link": "", "code": "01234567", "details": {"device": "Firefox <b>", "left": "7"}}
    message = mailer.render(letter(template, values), NOW)
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    for said in (text.get_content(), html.get_content()):
        assert "The Daily" in said
        assert "password" in said
        assert "Codes left" in said
        assert ("01234567" in said) == (template == "email_code")
        assert "https://" not in said
    assert "Device: Firefox <b>\nCodes left: 7\n" in text.get_content()
    assert "<b>" not in html.get_content()
    assert "01234567" not in str(message["Subject"])


def test_a_receipt_says_what_was_paid(mailer: Mailer) -> None:
    message = mailer.render(letter("receipt", RECEIPT), NOW)
    text = message.get_body(("plain",))
    assert message["Subject"] == "Your receipt 2026-000001 from The Daily"
    assert text is not None
    assert "EUR 9.00" in text.get_content()


def test_a_name_cannot_write_markup_into_a_mail(mailer: Mailer) -> None:
    message = mailer.render(letter("receipt", {**RECEIPT, "name": "<img src=x onerror=alert(1)>"}), NOW)
    html = message.get_body(("html",))
    assert html is not None
    assert "<img" not in html.get_content()


def test_a_publication_cannot_write_headers_into_a_mail(mailer: Mailer) -> None:
    message = mailer.render(letter("receipt", {**RECEIPT, "publication": "X\r\nBcc: eve@example.com"}), NOW)
    assert message["Bcc"] is None


def test_a_mail_repeats_under_the_same_message_id(mailer: Mailer) -> None:
    first, second = (mailer.render(letter("receipt", RECEIPT), NOW) for _ in range(2))
    assert first["Auto-Submitted"] == "auto-generated"
    assert first["Message-ID"] == second["Message-ID"] == "<mail_1@daily.example>"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.1.1",
        "169.254.169.254",
        "0.0.0.0",
        "::1",
        "[::1]",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:10.0.0.1",
        "224.0.0.1",
    ],
)
def test_a_private_address_is_not_public(address: str) -> None:
    assert not is_public_address(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "hooks.example.com"])
def test_a_public_address_or_a_name_is(address: str) -> None:
    assert is_public_address(address)
