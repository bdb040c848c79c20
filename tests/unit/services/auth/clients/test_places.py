"""Where addresses are, from a real database."""

from pathlib import Path

import maxminddb
import pytest

from services.auth.clients.places import Places
from tests.support.places import write_places


@pytest.mark.parametrize(
    ("address", "name", "latitude"),
    [
        ("203.0.113.77", "Berlin, Germany", 52.52),
        ("198.51.100.9", "Sydney, Australia", -33.87),
        ("2001:db8:1::5", "Japan", 35.69),
        ("192.0.2.65", "", 46.9),
    ],
)
async def test_an_address_has_a_place(tmp_path: Path, address: str, name: str, latitude: float) -> None:
    places = Places(write_places(tmp_path))
    found = places.of(address)
    assert found is not None
    assert (found.name, found.latitude) == (name, pytest.approx(latitude))
    await places.close()


@pytest.mark.parametrize(
    "address", ["", "rubbish", "203.0.113.77:80", "10.0.0.1", "::1", "2001:db8:2::1", "192.0.2.1", "192.0.2.200"]
)
def test_nothing_is_guessed_of_others(tmp_path: Path, address: str) -> None:
    assert Places(write_places(tmp_path)).of(address) is None


async def test_without_a_database_no_place_is_known() -> None:
    places = Places(None)
    assert places.of("203.0.113.77") is None
    await places.close()


def test_what_is_no_database_keeps_auth_from_starting(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Places(tmp_path / "missing.mmdb")
    (tmp_path / "rubbish.mmdb").write_bytes(b"rubbish" * 100)
    with pytest.raises(maxminddb.InvalidDatabaseError):
        Places(tmp_path / "rubbish.mmdb")
