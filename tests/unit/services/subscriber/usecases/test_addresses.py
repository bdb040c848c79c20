"""Which addresses are taken, and their one spelling."""

import pytest

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
