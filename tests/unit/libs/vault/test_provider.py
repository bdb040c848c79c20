"""The file key provider: what it wraps, and which files it refuses."""

import os
from pathlib import Path

import pytest

from libs.vault.provider import FileKeyProvider, ProviderError, create_key_file, provider


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "provider.key"
    create_key_file(path)
    return path


async def test_a_wrapped_key_unwraps_in_its_context(key_file: Path) -> None:
    wraps = FileKeyProvider(key_file)
    wrapped = await wraps.wrap(b"k" * 32, b"account 1")
    assert b"k" * 32 not in wrapped
    assert await FileKeyProvider(key_file).unwrap(wrapped, b"account 1", wraps.key_id) == b"k" * 32


async def test_a_wrapped_key_does_not_unwrap_in_another_context(key_file: Path) -> None:
    wraps = FileKeyProvider(key_file)
    wrapped = await wraps.wrap(b"k" * 32, b"account 1")
    with pytest.raises(ProviderError, match="another account"):
        await wraps.unwrap(wrapped, b"account 2", wraps.key_id)


async def test_a_key_file_that_was_exchanged_is_named(key_file: Path, tmp_path: Path) -> None:
    wraps = FileKeyProvider(key_file)
    wrapped = await wraps.wrap(b"k" * 32, b"account 1")
    create_key_file(tmp_path / "other.key")
    with pytest.raises(ProviderError, match=wraps.key_id):
        await FileKeyProvider(tmp_path / "other.key").unwrap(wrapped, b"account 1", wraps.key_id)


def test_a_key_file_is_made_for_its_owner_alone_and_never_overwritten(key_file: Path) -> None:
    assert key_file.stat().st_mode & 0o777 == 0o600
    before = key_file.read_bytes()
    create_key_file(key_file)
    assert key_file.read_bytes() == before
    assert len(before) == 32


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o601, 0o666])
def test_a_key_file_open_to_others_is_refused(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    with pytest.raises(ProviderError, match="chmod 600"):
        FileKeyProvider(key_file)


@pytest.mark.parametrize("content", [b"", b"k" * 31, b"k" * 33])
def test_a_key_of_another_length_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "short.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ProviderError, match="exactly 32 bytes"):
        FileKeyProvider(path)


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match=r"absent\.key cannot be read"):
        FileKeyProvider(tmp_path / "absent.key")


def test_a_directory_or_device_is_no_key_file() -> None:
    with pytest.raises(ProviderError, match="not a regular file"):
        FileKeyProvider(Path("/dev/zero"))


def test_an_unknown_provider_is_named_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match=r"unknown key provider 'awskms'.*file"):
        provider("awskms", tmp_path / "provider.key")


def test_the_file_provider_needs_a_file() -> None:
    with pytest.raises(ProviderError, match="GATEFOLD_KEY_FILE"):
        provider("file", None, os.urandom)
