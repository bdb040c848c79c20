"""Devices: what is taken for the same one, and what mails call it."""

from uuid import UUID

import pytest

from services.auth.domain.device import Device, name, sight

PLACE, WHO = UUID(int=1), UUID(int=2)
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"
HOME = Device(FIREFOX, "203.0.113.7")


def seen(device: Device, place: UUID = PLACE, who: UUID = WHO, secret: bytes = b"s" * 32) -> bytes | None:
    return sight(device, place, who, secret)


@pytest.mark.parametrize(
    "same",
    [
        Device(FIREFOX.replace("140.0", "152.3"), "203.0.113.7"),
        Device(FIREFOX, "203.0.7.1"),
        Device(FIREFOX, "::ffff:203.0.113.7"),
    ],
)
def test_an_update_or_another_address_of_the_network_makes_no_new_device(same: Device) -> None:
    assert seen(same) == seen(HOME)


@pytest.mark.parametrize(
    "other", [Device(FIREFOX, "203.1.113.7"), Device("curl/8.1", "203.0.113.7"), Device(FIREFOX), Device(FIREFOX, "x")]
)
def test_another_browser_or_network_is_another_device(other: Device) -> None:
    assert seen(other) not in (None, seen(HOME))


def test_addresses_of_version_6_are_one_by_their_provider() -> None:
    assert seen(Device(FIREFOX, "2001:db8:1::1")) == seen(Device(FIREFOX, "2001:db8:2::1"))
    assert seen(Device(FIREFOX, "2001:db9::1")) != seen(Device(FIREFOX, "2001:db8::1"))


def test_nothing_is_seen_where_nothing_is_told() -> None:
    assert seen(Device()) is None


def test_what_is_kept_tells_nothing_of_two_people_on_one_device() -> None:
    kept = {seen(HOME), seen(HOME, who=UUID(int=3)), seen(HOME, place=UUID(int=3)), seen(HOME, secret=b"t" * 32)}
    assert len(kept) == 4


@pytest.mark.parametrize(
    ("user_agent", "told"),
    [
        (FIREFOX, "Firefox on Windows"),
        ("Mozilla/5.0 (Linux; Android 16) AppleWebKit/537 Chrome/150.0 Mobile Safari/537", "Chrome on Android"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) Chrome/150 Safari/537 Edg/150", "Edge on macOS"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) Version/18 Safari/604", "Safari on iPhone"),
        ("curl/8.1", ""),
        ("Call +1 555 0100 at once, or follow https://evil.example", ""),
    ],
)
def test_a_mail_calls_a_device_by_our_words_alone(user_agent: str, told: str) -> None:
    assert name(Device(user_agent)) == told
