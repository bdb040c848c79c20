"""The one spelling of an origin."""

import pytest

from libs.errors import GatefoldError
from services.subscriber.domain.site import serialized_origin


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://news.example", "https://news.example"),
        ("HTTPS://News.Example:443", "https://news.example"),
        ("http://localhost:80", "http://localhost"),
        ("http://localhost:3000", "http://localhost:3000"),
        (" https://news.example:08443 ", "https://news.example:8443"),
    ],
)
def test_an_origin_is_spelled_as_browsers_send_it(text: str, origin: str) -> None:
    assert serialized_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "news.example",
        "https://",
        "https://news.example/",
        "https://a@news.example",
        "https://news.example:0",
        "https://news.example:65536",
        "https://*.example",
        "https://a..b",
        f"https://{'a' * 64}.example",
        "ftp://a.example",
    ],
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(GatefoldError) as raised:
        serialized_origin(text)
    assert raised.value.reason == "origin_malformed"
