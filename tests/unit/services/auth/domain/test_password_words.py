"""Which words say too much of a password."""

import pytest

from services.auth.domain.password_words import known_words, says_too_much

WORDS = known_words(
    email="Rita.Reader@mail.example.com",
    name="Rita O'Leary-Reader",
    publication="The Daily Planet",
    site="https://www.dailyplanet.example/welcome",
)


@pytest.mark.case("auth-10")
@pytest.mark.parametrize(
    "password",
    [
        "gatefold-2026-gatefold",
        "TheDailyPlanet1!",
        "dailyplanet dailyplanet",
        "rita.reader.rita",
        "RITA.READER-12345",
        "O'Leary O'Leary 99",
        "ｄａｉｌｙｐｌａｎｅｔ daily",
    ],
)
def test_a_password_made_of_what_everybody_knows_says_too_much(password: str) -> None:
    assert says_too_much(password, WORDS)


@pytest.mark.parametrize(
    "password",
    ["correct horse battery", "the daily walk around the quiet lake", "aaaaaaaaaaaaaaa1", "rita und 14 Murmeltiere"],
)
def test_a_word_among_others_does_not(password: str) -> None:
    assert not says_too_much(password, WORDS)


def test_short_words_are_not_taken_out() -> None:
    assert known_words(email="al@x.io", name="Al") == ("gatefold",)
