"""Ports and places of the one-machine stack."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.settings import HOST, Place, StackConfig, choose_ports, free_port


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server((HOST, 0)) as server:
        yield int(server.getsockname()[1])


def _config(tmp_path: Path, http: int) -> StackConfig:
    # 0 asks for any free port.
    return StackConfig(state_dir=tmp_path, http_port=http, stripe_port=0, mail_port=0, smtp_port=0)


def test_port_that_is_taken_is_replaced_by_a_free_one_and_kept(tmp_path: Path, taken: int) -> None:
    place = Place(tmp_path)
    said: list[str] = []
    first = choose_ports(_config(tmp_path, taken), place, said.append)
    assert first.http != taken
    assert said == [f"http: port {taken} is taken, using {first.http}"]
    assert len({first.http, first.stripe, first.mail, first.smtp}) == 4
    assert choose_ports(_config(tmp_path, taken), place, said.append) == first
    assert len(said) == 1


def test_another_port_that_is_asked_for_is_taken(tmp_path: Path, taken: int) -> None:
    place = Place(tmp_path)
    first = choose_ports(_config(tmp_path, taken), place, lambda line: None)
    with socket.create_server((HOST, 0)) as server:
        free = int(server.getsockname()[1])
    assert choose_ports(_config(tmp_path, free), place, lambda line: None).http == free != first.http


def test_sockets_get_a_short_place_when_the_path_is_long(tmp_path: Path) -> None:
    short = Place(Path("/tmp/short"))
    assert short.run == Path("/tmp/short/run")
    long = Place(tmp_path / ("x" * 100))
    assert len(str(long.admin_socket("subscriber"))) <= 103


def test_directories_are_closed_to_others(tmp_path: Path) -> None:
    place = Place(tmp_path / "state")
    place.make()
    assert place.state.stat().st_mode & 0o777 == 0o711
    assert place.run.stat().st_mode & 0o777 == 0o700


def test_a_free_port_is_none_that_is_excepted_or_that_the_kernel_gives_away() -> None:
    most = set(range(15_000, 32_000))
    assert free_port(but=most - {15_007, 15_008}) in (15_007, 15_008)
    with pytest.raises(OSError, match="no free port"):
        free_port(but=most)
