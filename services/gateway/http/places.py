"""Owns where addresses are and who announces them, from databases that the operator mounts (MaxMind DB format)."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import maxminddb

from libs.events.pause import pause
from libs.telemetry import Telemetry

LOOK_SECONDS = 10.0
"""How often the files are looked at."""


@dataclass(frozen=True, slots=True)
class Place:
    """What is known of an address."""

    country: str = ""
    """ISO 3166 code; empty where none is known."""
    asn: int = 0
    """Number of the network's operator; 0 where none is known."""
    latitude: int | None = None
    """In whole degrees, which is as exactly as anybody needs it here."""
    longitude: int | None = None


NOWHERE = Place()


class Places:
    """Places of addresses; nothing is asked of anybody outside. Without a database no place is known.

    A file is to be replaced by renaming another over it; it is mapped into memory.
    """

    def __init__(self, cities: Path | None, asns: Path | None, telemetry: Telemetry) -> None:
        """`cities` is of the City or the Country schema, `asns` of the ASN schema.

        Raises OSError for a file that cannot be read, and maxminddb.InvalidDatabaseError for another one.
        """
        self._cities = _Database(cities)
        self._asns = _Database(asns)
        self.edition = 0
        """Changes with the databases: what was said before holds no more."""
        self._log = telemetry.logger("places")
        self._failures = telemetry.counter("gateway_place_database_failures", "Databases of places that are no good")

    def of(self, address: str) -> Place:
        """Returns what is known of an address; http/clients.py keeps it."""
        city, network = self._cities.get(address), self._asns.get(address)
        country = _read(city, "country", "iso_code")
        asn = _read(network, "autonomous_system_number")
        place = Place(
            country if isinstance(country, str) else "",
            asn if isinstance(asn, int) else 0,
            _degrees(_read(city, "location", "latitude")),
            _degrees(_read(city, "location", "longitude")),
        )
        return NOWHERE if place == NOWHERE else place

    def refresh(self) -> None:
        """Opens files that were replaced; one that is no good leaves the former in use."""
        for database in (self._cities, self._asns):
            try:
                changed = database.refresh()
            except (OSError, maxminddb.InvalidDatabaseError) as error:
                self._failures.inc()
                self._log.warning("a database of places is no good", extra={"why": type(error).__name__})
                continue
            if changed:
                self.edition += 1
                self._log.info("a database of places was replaced")

    async def watch(self, stop: asyncio.Event) -> None:
        """Looks at the files until `stop` is set."""
        while not stop.is_set():
            await asyncio.to_thread(self.refresh)
            await pause(stop, LOOK_SECONDS)

    async def close(self) -> None:
        """Closes the databases."""
        self._cities.close()
        self._asns.close()


class _Database:
    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen = self._state()
        self._reader: Any = None if path is None else maxminddb.open_database(path)

    def _state(self) -> tuple[int, int, int] | None:
        if self._path is None:
            return None
        found = self._path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def get(self, address: str) -> object:
        try:
            return self._reader.get(address) if self._reader and address else None
        except (ValueError, maxminddb.InvalidDatabaseError):
            return None

    def refresh(self) -> bool:
        state = self._state()
        if self._path is None or state == self._seen:
            return False
        # Seen even when it is no good, so that it is complained of once.
        self._seen = state
        # The former is let go and not closed: a look-up may be at it.
        self._reader = maxminddb.open_database(self._path)
        return True

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()


def _read(found: object, *keys: str) -> object:
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _degrees(found: object) -> int | None:
    rounded: Callable[[float], int] = round
    return rounded(found) if isinstance(found, int | float) else None
