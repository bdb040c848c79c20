"""Countries and operators of addresses, from files that the operator replaces."""

from pathlib import Path

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from libs.telemetry import Telemetry
from services.gateway.http.places import NOWHERE, Place, Places


def write(path: Path, kind: str, entries: dict[str, object]) -> Path:
    """Writes a database beside the path and renames it over, as operators are told to."""
    writer = MMDBWriter(6, kind, languages=["en"], ipv4_compatible=True, int_type="uint32")
    for network, entry in entries.items():
        writer.insert_network(IPSet([network]), entry)
    fresh = path.with_suffix(".new")
    writer.to_db_file(str(fresh))
    fresh.rename(path)
    return path


@pytest.fixture
def cities(tmp_path: Path) -> Path:
    berlin = {"country": {"iso_code": "DE"}, "location": {"latitude": 52.52, "longitude": 13.4}}
    odd = {"country": "DE", "location": {"latitude": "far"}}
    return write(tmp_path / "c.mmdb", "GeoLite2-City", {"203.0.113.0/24": berlin, "198.51.100.0/24": odd})


@pytest.fixture
def asns(tmp_path: Path) -> Path:
    entries: dict[str, object] = {
        "203.0.113.0/25": {"autonomous_system_number": 64500},
        "2001:db8::/32": {"autonomous_system_number": 64501},
    }
    return write(tmp_path / "a.mmdb", "GeoLite2-ASN", entries)


async def test_what_is_known_comes_from_both(cities: Path, asns: Path) -> None:
    places = Places(cities, asns, Telemetry("tests"))

    assert places.of("203.0.113.9") == Place("DE", 64500, 53, 13)
    assert places.of("203.0.113.200") == Place("DE", 0, 53, 13)
    assert places.of("2001:db8::1") == Place("", 64501)
    assert [places.of(address) for address in ("192.0.2.1", "198.51.100.1", "", "x")] == [NOWHERE] * 4
    await places.close()


async def test_without_files_nothing_is_known() -> None:
    places = Places(None, None, Telemetry("tests"))
    places.refresh()

    assert places.of("203.0.113.9") == NOWHERE
    await places.close()


async def test_a_file_that_was_replaced_is_taken(cities: Path) -> None:
    places = Places(cities, None, Telemetry("tests"))
    assert places.of("203.0.113.9").country == "DE"
    write(cities, "GeoLite2-City", {"203.0.113.0/24": {"country": {"iso_code": "FR"}}})
    places.refresh()

    assert places.of("203.0.113.9").country == "FR"
    await places.close()


async def test_a_file_that_is_no_good_leaves_the_former_in_use(cities: Path) -> None:
    telemetry = Telemetry("tests")
    places = Places(cities, None, telemetry)
    bad = cities.with_suffix(".bad")
    bad.write_bytes(b"nothing of the kind")
    bad.rename(cities)
    places.refresh()
    places.refresh()

    assert places.of("203.0.113.77").country == "DE"
    name = "gatefold_gateway_place_database_failures_total"
    assert telemetry.registry.get_sample_value(name) == 1
    cities.unlink()
    places.refresh()
    assert places.of("203.0.113.78").country == "DE"
    await places.close()


def test_a_file_that_is_missing_at_the_start_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none"):
        Places(tmp_path / "none.mmdb", None, Telemetry("tests"))
