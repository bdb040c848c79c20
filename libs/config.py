"""Owns configuration: frozen dataclasses filled from the environment, secrets from mounted files."""

import dataclasses
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


class ConfigError(Exception):
    """Names everything that is missing or unreadable in the configuration, never a value."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class Secret:
    """A text that shows itself only when asked."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Returns the text."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> typing.NoReturn:
        raise TypeError("a secret is not serialised")


def load(cls: type[T], environ: Mapping[str, str] | None = None, prefix: str = "GATEFOLD") -> T:
    """Fills a frozen dataclass: `postgres_app_dsn` from GATEFOLD_POSTGRES_APP_DSN, or the file GATEFOLD_…_FILE names.

    Fields that are dataclasses themselves are filled from the same flat names. A variable that is set to nothing
    counts as not set. Types: str, int, float, bool, Path, Secret, tuple[str, ...] (by commas) and `X | None`. Of a
    file one trailing newline is dropped. Other variables are ignored. Raises ConfigError with all problems at once.
    """
    problems: list[str] = []
    loaded = _load(cls, os.environ if environ is None else environ, prefix, problems)
    if problems or loaded is None:
        raise ConfigError(problems)
    return loaded


def _load(cls: type[T], environ: Mapping[str, str], prefix: str, problems: list[str]) -> T | None:
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls.__name__} is not a dataclass")
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    before = len(problems)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            values[field.name] = _load(typing.cast("type[Any]", hint), environ, prefix, problems)
            continue
        variable = f"{prefix}_{field.name.upper()}"
        try:
            text = _read(variable, environ)
            if text is not None:
                values[field.name] = _convert(text, hint)
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                if not _optional(hint):
                    problems.append(f"{variable} is missing")
                values[field.name] = None
        except ValueError as error:
            problems.append(f"{variable} {error}")
    if len(problems) > before:
        return None
    try:
        return typing.cast("T", cls(**values))
    except ValueError as error:  # a rule of the dataclass's own, checked in its __post_init__
        problems.append(str(error))
        return None


def _read(variable: str, environ: Mapping[str, str]) -> str | None:
    text = environ.get(variable) or None
    file = environ.get(f"{variable}_FILE") or None
    if file is None:
        return text
    if text is not None:
        raise ValueError(f"and {variable}_FILE are both set")
    try:
        content = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        # The path is no secret, and says what to mount.
        raise ValueError(f"cannot be read from {file}: {type(error).__name__}") from error
    return content.removesuffix("\n").removesuffix("\r") or None


def _optional(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType) and type(None) in typing.get_args(hint)


def _convert(text: str, hint: Any) -> Any:
    if _optional(hint):
        (hint,) = (argument for argument in typing.get_args(hint) if argument is not type(None))
    if typing.get_origin(hint) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if hint is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise ValueError("must be true or false")
    if hint is int or hint is float:
        try:
            return hint(text)
        except ValueError:
            raise ValueError("must be a number") from None
    if hint is str or hint is Path or hint is Secret:
        return hint(text)
    raise TypeError(f"no configuration of type {hint!r}")
