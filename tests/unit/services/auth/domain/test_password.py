"""Passwords: length, the bytes that are hashed, and the arithmetic of equal work."""

import base64
import hashlib
import hmac

import pytest

from libs.errors import GatefoldError
from services.auth.domain import password


@pytest.mark.parametrize("text", ["x" * 15, "x" * 1024, "é" * 15, "🦉" * 15, " " * 15])
def test_fifteen_to_1024_code_points_are_accepted_as_they_are(text: str) -> None:
    assert password.checked_password(text) == text


@pytest.mark.parametrize("text", ["", "x" * 14, "e\u0301" * 14])
def test_fewer_are_too_short(text: str) -> None:
    with pytest.raises(GatefoldError, match="password_too_short"):
        password.checked_password(text)


def test_more_are_too_long() -> None:
    with pytest.raises(GatefoldError, match="password_too_long"):
        password.checked_password("x" * 1025)


def test_the_hashed_material_is_64_bytes_of_base64_whatever_the_length() -> None:
    for text in ("", "x", "x" * 1024, "\0" * 20):
        made = password.material(text, b"pepper")
        assert len(made) == 64
        assert b"\0" not in made
        assert made == base64.b64encode(hmac.new(b"pepper", text.encode(), hashlib.sha384).digest())


def test_compatible_spellings_make_the_same_material_and_peppers_another() -> None:
    assert password.material("caf\u00e9", b"p") == password.material("cafe\u0301", b"p")
    assert password.material("\ufb01sh", b"p") == password.material("fish", b"p")
    assert password.material("fish", b"p") != password.material("fish", b"q")
    assert password.material("fish", b"p") != password.material("Fish", b"p")


@pytest.mark.parametrize(("done", "target"), [(4, 4), (4, 5), (10, 12), (4, 16)])
def test_topping_up_makes_exactly_the_missing_work(done: int, target: int) -> None:
    more = password.topping_up(done, target)
    assert password.work(done) + sum(password.work(cost) for cost in more) == password.work(target)


def test_nothing_is_added_to_work_that_is_dearer_already() -> None:
    assert password.topping_up(13, 12) == []
