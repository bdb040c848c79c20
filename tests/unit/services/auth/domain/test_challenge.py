"""Challenges: tokens that follow from their id, and links that keep what the publisher's address held."""

from uuid import UUID

import pytest

from services.auth.domain import challenge


def test_a_token_is_the_same_each_time_and_another_for_each_challenge_and_secret() -> None:
    token = challenge.token_of(UUID(int=1), b"secret")
    assert token == challenge.token_of(UUID(int=1), b"secret")
    assert len({token, challenge.token_of(UUID(int=2), b"secret"), challenge.token_of(UUID(int=1), b"other")}) == 3


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://daily.example", "https://daily.example?token=T"),
        ("https://daily.example/in", "https://daily.example/in?token=T"),
        ("https://daily.example/in?from=mail", "https://daily.example/in?from=mail&token=T"),
        ("http://localhost:8080/in?a=1&b=%20", "http://localhost:8080/in?a=1&b=%20&token=T"),
    ],
)
def test_a_link_is_the_address_with_the_token(url: str, expected: str) -> None:
    assert challenge.link(url, "T") == expected
