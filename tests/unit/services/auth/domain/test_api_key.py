"""API keys: their form."""

import pytest

from services.auth.domain import api_key


@pytest.mark.parametrize(
    ("kind", "live", "start"),
    [
        (api_key.SECRET, True, "gfsk_live_"),
        (api_key.SECRET, False, "gfsk_test_"),
        (api_key.PUBLISHABLE, True, "gfpk_live_"),
        (api_key.PUBLISHABLE, False, "gfpk_test_"),
    ],
)
@pytest.mark.parametrize("filler", [b"\0", b"\xff", b"\x5a"])
def test_every_256_bits_fit_43_digits_and_carry_their_checksum(
    kind: str, live: bool, start: str, filler: bytes
) -> None:
    key = api_key.mint(kind, live, lambda count: filler * count)
    assert key.startswith(start)
    assert len(key) == len(start) + 49
    assert api_key.well_formed(key)


def test_the_form_is_pinned() -> None:
    # The gateway and scanners of leaked keys know this form too.
    key = api_key.mint(api_key.SECRET, True, lambda count: bytes(range(count)))
    assert key == "gfsk_live_003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf09gr9o"
    assert api_key.shown_parts(key) == ("gfsk_live_003a", "gr9o")


def test_a_key_of_one_kind_does_not_pass_for_another() -> None:
    key = api_key.mint(api_key.PUBLISHABLE, True, lambda count: b"\1" * count)
    assert not api_key.well_formed(key.replace("gfpk", "gfsk"))
    assert not api_key.well_formed(key.replace("live", "test"))
