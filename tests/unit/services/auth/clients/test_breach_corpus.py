"""Looking a breached password up on disk."""

import hashlib
from pathlib import Path

import pytest

from services.auth.clients.breach_corpus import ENTRY_BYTES, BreachCorpus


def digest(password: str) -> bytes:
    return hashlib.sha1(password.encode()).digest()


def written(path: Path, passwords: list[str]) -> Path:
    path.write_bytes(b"".join(sorted(digest(password)[:ENTRY_BYTES] for password in passwords)))
    return path


@pytest.mark.parametrize("count", [1, 2, 3, 1000])
def test_exactly_what_was_written_is_found(tmp_path: Path, count: int) -> None:
    passwords = [f"password {number}" for number in range(count)]
    corpus = BreachCorpus(written(tmp_path / "all.bin", passwords))
    assert all(corpus.holds(digest(password)) for password in passwords)
    assert not any(corpus.holds(digest(f"other {number}")) for number in range(1000))


def test_a_folder_holds_segments_by_their_first_digits(tmp_path: Path) -> None:
    name = digest("password").hex()[:3]
    written(tmp_path / f"{name}.bin", ["password"])
    corpus = BreachCorpus(tmp_path)
    assert corpus.holds(digest("password"))
    assert not corpus.holds(digest("another"))


@pytest.mark.parametrize("content", [b"", b"too short"])
def test_a_file_that_is_no_list_is_refused_at_start(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "all.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"all\.bin is no list"):
        BreachCorpus(path)


def test_a_missing_file_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"all\.bin is no list"):
        BreachCorpus(tmp_path / "all.bin")
