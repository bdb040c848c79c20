"""Tests of libs/sockets."""

import os
import socket
import stat
from pathlib import Path

import pytest

from libs import sockets


@pytest.mark.parametrize(
    ("address", "parts"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:80", ("::1", 80)), ("billing:0", ("billing", 0))],
)
def test_host_and_port_are_told_apart(address: str, parts: tuple[str, int]) -> None:
    assert sockets.split(address) == parts
    assert sockets.path_of(address) is None


@pytest.mark.parametrize("address", ["", "80", "host", "host:", "host:http"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        sockets.split(address)


def test_a_socket_belongs_to_its_owner_alone_in_a_private_directory(tmp_path: Path) -> None:
    path = sockets.path_of(f"unix:{tmp_path}/run/x.sock")
    assert path is not None

    with sockets.binding(path), socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_mask_of_the_process_is_put_back(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with pytest.raises(RuntimeError), sockets.binding(tmp_path / "x.sock"):
            raise RuntimeError
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_a_stale_socket_makes_room(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    for _ in range(2):
        with sockets.binding(path), socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))

    assert path.is_socket()


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    path.write_text("precious")

    with sockets.binding(path):
        assert path.read_text() == "precious"


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    with pytest.raises(ValueError, match="others may write"), sockets.binding(tmp_path / "x.sock"):
        pass


def test_a_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="longer than"), sockets.binding(tmp_path / ("x" * 110)):
        pass
