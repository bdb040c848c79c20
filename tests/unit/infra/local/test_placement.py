"""Where embedded stores are put, and what is refused there."""

import os
import stat
from pathlib import Path

import pytest

from infra.local import placement
from infra.local.placement import StoreError, User

STRANGER = User("stranger", 64_999, 64_999)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for /var/tmp."""
    folder = tmp_path / "shared"
    folder.mkdir()
    monkeypatch.setattr(placement, "SHARED_STATE", folder)
    return folder


@pytest.fixture
def open_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that others could pass into, were it not for what lies above it."""
    folder = tmp_path_factory.mktemp("open")
    folder.chmod(0o755)
    return folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_without_another_user_the_wanted_place_is_taken(tmp_path: Path) -> None:
    home = placement.home_for(tmp_path / "private" / "postgres", None)
    assert home == tmp_path / "private" / "postgres"
    assert mode(home) == 0o711


def test_a_place_that_the_user_cannot_get_to_is_left_for_a_shared_one(tmp_path: Path, shared: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    first = placement.home_for(closed / "postgres", STRANGER)
    assert first.parent == shared
    assert placement.home_for(closed / "postgres", STRANGER) == first
    assert placement.home_for(closed / "valkey", STRANGER) != first
    assert mode(closed) == 0o700


def test_a_directory_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    planted = tmp_path / "planted"
    planted.symlink_to(target)
    (tmp_path / "file").touch()
    for path in (planted, tmp_path / "file"):
        with pytest.raises(StoreError, match="not a directory of this user"):
            placement.private_directory(path)
    assert mode(target) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_that_belongs_to_another_user_is_not_used(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    os.chown(foreign, STRANGER.uid, STRANGER.gid)
    with pytest.raises(StoreError, match="not a directory of this user"):
        placement.private_directory(foreign)


@pytest.mark.parametrize(
    ("bits", "access", "allowed"),
    [(0o755, os.R_OK, True), (0o755, os.X_OK, True), (0o700, os.X_OK, False), (0o711, os.R_OK, False)],
)
def test_access_goes_by_the_bits_for_others(open_path: Path, bits: int, access: int, allowed: bool) -> None:
    file = open_path / "file"
    file.touch()
    file.chmod(bits)
    assert placement.reachable(file, STRANGER, access) is (allowed and _passable(open_path))


def _passable(path: Path) -> bool:
    return all(mode(parent) & 0o001 for parent in (path, *path.parents))


def test_an_installation_is_copied_where_the_user_can_run_it(tmp_path: Path, shared: Path) -> None:
    source = tmp_path / "closed" / "install"
    (source / "bin").mkdir(parents=True)
    (source / "include").mkdir()
    (source / "bin" / "server").write_text("#!/bin/sh\n")
    (source / "bin" / "server").chmod(0o700)
    (source / "bin" / "data").write_text("x")
    (source / "bin" / "data").chmod(0o600)
    (tmp_path / "closed").chmod(0o700)

    def ignore(folder: str, names: list[str]) -> set[str]:
        return {"include"} & set(names)

    assert placement.installed(source, ("bin/server",), None, "server-1", ignore) == source
    copy = placement.installed(source, ("bin/server",), STRANGER, "server-1", ignore)
    assert copy.is_relative_to(shared)
    assert (mode(copy), mode(copy / "bin" / "server"), mode(copy / "bin" / "data")) == (0o755, 0o755, 0o644)
    assert not (copy / "include").exists()
    marked = copy / "marked"
    marked.touch()
    assert placement.installed(source, ("bin/server",), STRANGER, "server-1", ignore) == copy
    assert marked.exists()
    assert placement.installed(source, ("bin/server",), STRANGER, "server-2", ignore) != copy
    part = placement.installed(source, ("bin/server",), STRANGER, "server-3", ignore, ("bin", "missing"))
    assert [path.name for path in part.iterdir()] == ["bin"]


def test_a_socket_path_that_is_too_long_is_replaced_by_a_short_one(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    short = placement.socket_directory(deep, ".s.PGSQL.5432")
    assert len(str(short / ".s.PGSQL.5432")) <= placement.MOST_SOCKET_BYTES
    assert short == placement.socket_directory(deep, ".s.PGSQL.5432")
    assert short != placement.socket_directory(deep / "y", ".s.PGSQL.5432")
    assert placement.socket_directory(Path("/srv/s"), ".s.PGSQL.5432") == Path("/srv/s")


def test_the_last_lines_of_a_log_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert placement.last_lines(log) == "(nothing logged)"
    log.write_text("\n".join(map(str, range(100))))
    assert placement.last_lines(log, 3) == "97\n98\n99"


def test_a_secret_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    placement.write_owned(path, "new", None)
    assert (path.read_text(), mode(path)) == ("new", 0o600)
