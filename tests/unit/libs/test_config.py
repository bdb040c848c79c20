"""Tests of libs/config."""

import pickle
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from libs import config
from libs.config import ConfigError, Secret


@dataclass(frozen=True)
class Nested:
    redis_url: Secret
    pool_size: int = 4

    def __post_init__(self) -> None:
        if self.pool_size < 1:
            raise ValueError("pool_size must be at least 1")


@dataclass(frozen=True)
class Settings:
    nested: Nested
    listen: str
    drain_seconds: float = 20.0
    closed_mode: bool = False
    key_path: Path | None = None
    kill_at: str | None = None
    origins: tuple[str, ...] = ()
    labels: tuple[str, ...] = field(default_factory=lambda: ("a",))


REQUIRED = {"GATEFOLD_LISTEN": "unix:/x", "GATEFOLD_REDIS_URL": "redis://:hunter2@x"}


def test_fields_are_filled_by_name_and_type() -> None:
    loaded = config.load(
        Settings,
        {
            **REQUIRED,
            "GATEFOLD_POOL_SIZE": "7",
            "GATEFOLD_DRAIN_SECONDS": "1.5",
            "GATEFOLD_CLOSED_MODE": "Yes",
            "GATEFOLD_KEY_PATH": "/run/key",
            "GATEFOLD_KILL_AT": "a:b",
            "GATEFOLD_ORIGINS": "https://a.example, https://b.example,",
            "GATEFOLD_UNKNOWN": "ignored",
            "LISTEN": "ignored",
        },
    )

    assert loaded == Settings(
        nested=Nested(Secret("redis://:hunter2@x"), 7),
        listen="unix:/x",
        drain_seconds=1.5,
        closed_mode=True,
        key_path=Path("/run/key"),
        kill_at="a:b",
        origins=("https://a.example", "https://b.example"),
    )


def test_defaults_stand_where_nothing_is_set() -> None:
    loaded = config.load(Settings, {**REQUIRED, "GATEFOLD_POOL_SIZE": "", "GATEFOLD_KILL_AT": ""})

    assert (loaded.nested.pool_size, loaded.kill_at, loaded.labels, loaded.closed_mode) == (4, None, ("a",), False)


def test_another_prefix_reads_other_variables() -> None:
    environ = {name.replace("GATEFOLD", "OTHER"): value for name, value in REQUIRED.items()}

    assert config.load(Settings, environ, prefix="OTHER").listen == "unix:/x"


@pytest.mark.parametrize(
    ("content", "value"), [("s3cret\n", "s3cret"), ("s3cret", "s3cret"), ("s3cret\n\n", "s3cret\n"), ("a\r\n", "a")]
)
def test_a_file_gives_the_value_without_one_trailing_newline(tmp_path: Path, content: str, value: str) -> None:
    mounted = tmp_path / "url"
    mounted.write_bytes(content.encode())

    loaded = config.load(Settings, {"GATEFOLD_LISTEN": "unix:/x", "GATEFOLD_REDIS_URL_FILE": str(mounted)})

    assert loaded.nested.redis_url.reveal() == value


def test_everything_that_is_missing_or_wrong_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(
            Settings,
            {
                "GATEFOLD_POOL_SIZE": "many-hunter2",
                "GATEFOLD_CLOSED_MODE": "maybe",
                "GATEFOLD_DRAIN_SECONDS": "soon",
                "GATEFOLD_REDIS_URL_FILE": "/nowhere/url",
            },
        )

    assert caught.value.problems == (
        "GATEFOLD_REDIS_URL cannot be read from /nowhere/url: FileNotFoundError",
        "GATEFOLD_POOL_SIZE must be a number",
        "GATEFOLD_LISTEN is missing",
        "GATEFOLD_DRAIN_SECONDS must be a number",
        "GATEFOLD_CLOSED_MODE must be true or false",
    )


def test_a_value_and_a_file_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="GATEFOLD_REDIS_URL and GATEFOLD_REDIS_URL_FILE are both set"):
        config.load(Settings, {**REQUIRED, "GATEFOLD_REDIS_URL_FILE": str(tmp_path)})


def test_rules_of_a_nested_configuration_are_reported_with_the_rest() -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(Settings, {"GATEFOLD_REDIS_URL": "x", "GATEFOLD_POOL_SIZE": "0"})

    assert caught.value.problems == ("pool_size must be at least 1", "GATEFOLD_LISTEN is missing")


def test_what_is_refused_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(Settings, {**REQUIRED, "GATEFOLD_POOL_SIZE": "hunter2"})

    assert "hunter2" not in str(caught.value)


def test_a_type_that_cannot_be_read_is_a_fault_of_the_code() -> None:
    @dataclass(frozen=True)
    class Odd:
        things: list[str]

    with pytest.raises(TypeError):
        config.load(Odd, {"GATEFOLD_THINGS": "a"})


def test_a_secret_shows_itself_only_when_asked() -> None:
    secret = Secret("hunter2")

    assert secret.reveal() == "hunter2"
    assert "hunter2" not in f"{secret} {secret!r} {Nested(secret)!r} {[secret]}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_the_environment_is_what_is_read_when_nothing_else_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)

    assert config.load(Settings).listen == "unix:/x"
