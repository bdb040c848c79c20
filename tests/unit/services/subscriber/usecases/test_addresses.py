"""Which addresses are taken, and their one spelling."""

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import given
from hypothesis import strategies as st

from libs.errors import GatefoldError
from services.subscriber.usecases.addresses import checked, spelled


def test_the_domain_is_spelled_in_lower_case_and_the_local_part_as_it_was() -> None:
    assert spelled("Mei.T@EXAMPLE.Com") == "Mei.T@example.com"


def test_an_address_is_freed_from_blanks_before_it_is_checked() -> None:
    assert checked("\u200b mei@example.com\n") == "mei@example.com"


@pytest.mark.parametrize(
    "text", ["", "mei", "mei@localhost", "mei@example.invalid", '"a b"@example.com', "a@b@example.com"]
)
def test_what_no_mail_can_be_sent_to_is_refused(text: str) -> None:
    with pytest.raises(GatefoldError) as raised:
        checked(text)
    assert raised.value.reason == "email_invalid"
    assert raised.value.violations[0].field == "email"


_LOCALS = st.one_of(
    st.from_regex(r"[a-z0-9_+'.-]{1,12}", fullmatch=True),
    st.text("abzAZ09_+'.- !#%@\"ü", max_size=10),
    st.sampled_from(["a" * 64, "a" * 65, "postmaster", "PostMaster", "info.", ".info", "a..b", "-", "'"]),
)
_DOMAINS = st.one_of(
    st.from_regex(r"[a-zA-Z0-9-]{1,8}(\.[a-zA-Z0-9-]{1,6}){0,3}", fullmatch=True),
    st.text("abZ09.-ü _", max_size=12),
    st.sampled_from(
        [
            "Example.COM",
            "example.invalid",
            "localhost",
            "a.test",
            "1.2.3.4",
            "xn--bcher-kva.example",
            "xn--zz.example",
            "ab--cd.de",
            f"{'a' * 63}.de",
            f"{'a' * 64}.de",
            f"{'a.' * 100}de",
            f"{'a.' * 125}de",
            "example.com.",
            ".example.com",
            "a..b",
            "a.123",
        ]
    ),
)


@given(_LOCALS, _DOMAINS)
def test_the_short_way_and_the_long_way_come_to_the_same(local: str, domain: str) -> None:
    text = f"{local}@{domain}"
    try:
        expected = validate_email(text, check_deliverability=False, strict=True).normalized
    except EmailNotValidError:
        expected = None
    assert spelled(text) == expected
