"""auth's settings: peppers and limits."""

import pytest

from libs.config import Secret
from services.auth.config import PasswordConfig, SecretsConfig

LONG = "x" * 32


def secrets(password_pepper: str = LONG, key_pepper: str = LONG, challenge_secret: str = LONG) -> SecretsConfig:
    return SecretsConfig(Secret(key_pepper), Secret(password_pepper), Secret(challenge_secret))


def test_one_pepper_has_the_id_1_and_of_several_the_first_is_in_use() -> None:
    assert secrets().peppers() == {"1": LONG.encode()}
    several = secrets(f'{{"2": "{LONG}2", "1": "{LONG}1"}}').peppers()
    assert list(several) == ["2", "1"]


@pytest.mark.parametrize("pepper", ["short", "{", "{}", '{"1": "short"}', '{"1": 5}'])
def test_a_pepper_that_cannot_be_used_is_refused_without_being_shown(pepper: str) -> None:
    with pytest.raises(ValueError, match="pepper") as raised:
        secrets(pepper)
    assert "short" not in str(raised.value)


@pytest.mark.parametrize("name", ["key_pepper", "challenge_secret"])
def test_short_secrets_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        secrets(**{name: "short"})


@pytest.mark.parametrize(
    "values", [{"bcrypt_cost": 3}, {"bcrypt_cost": 17}, {"bcrypt_highest_cost": 17}, {"hash_queue": 0}]
)
def test_costs_and_queues_have_bounds(values: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        PasswordConfig(**values)
