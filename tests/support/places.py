"""Owns databases of places as tests mount them: some networks for documentation, far apart."""

from pathlib import Path
from typing import Any

from mmdb_writer import MMDBWriter
from netaddr import IPSet

_CODES = {"Germany": "DE", "Australia": "AU", "Japan": "JP"}


def _city(city: str, country: str, latitude: float, longitude: float) -> dict[str, Any]:
    names = {"city": {"names": {"en": city}}} if city else {}
    return {
        **names,
        "country": {"names": {"en": country}, "iso_code": _CODES[country]},
        "location": {"latitude": latitude, "longitude": longitude},
    }


PLACES: dict[str, dict[str, Any]] = {
    "203.0.113.0/24": _city("Berlin", "Germany", 52.52, 13.40),
    "203.0.200.0/24": _city("Potsdam", "Germany", 52.39, 13.06),
    "198.51.100.0/24": _city("Sydney", "Australia", -33.87, 151.21),
    "2001:db8:1::/48": _city("", "Japan", 35.69, 139.69),
    "192.0.2.0/26": {"country": {"names": {"en": "Nowhere"}}},
    "192.0.2.64/26": {"city": "Bern", "country": ["Switzerland"], "location": {"latitude": 46.9, "longitude": 7.4}},
    "192.0.2.128/25": {"city": "Nowhere", "location": {"latitude": "far", "longitude": 1.0}},
}


def write_places(folder: Path) -> Path:
    """Writes a database, and returns where."""
    writer = MMDBWriter(6, "GeoLite2-City", languages=["en"], ipv4_compatible=True)
    for network, place in PLACES.items():
        writer.insert_network(IPSet([network]), place)
    path = folder / "places.mmdb"
    writer.to_db_file(str(path))
    return path
