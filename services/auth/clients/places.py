"""Owns looking up where an address is, in a database that the operator mounts (MaxMind DB format, City schema)."""

from pathlib import Path

import maxminddb

from services.auth.domain.travel import Place


class Places:
    """Places of addresses; nothing is asked of anybody outside. Without a database no place is known."""

    def __init__(self, database: Path | None) -> None:
        """Raises OSError for a file that cannot be read, and maxminddb.InvalidDatabaseError for another one."""
        self._reader = maxminddb.open_database(database) if database else None

    def of(self, address: str) -> Place | None:
        """Returns where an address is."""
        try:
            found: object = self._reader.get(address) if self._reader and address else None
        except (ValueError, maxminddb.InvalidDatabaseError):
            return None
        latitude, longitude = _read(found, "location", "latitude"), _read(found, "location", "longitude")
        if not isinstance(latitude, int | float) or not isinstance(longitude, int | float):
            return None
        names = [_read(found, kind, "names", "en") for kind in ("city", "country")]
        name = ", ".join(name for name in names if isinstance(name, str))
        country = _read(found, "country", "iso_code")
        return Place(float(latitude), float(longitude), name, country if isinstance(country, str) else "")

    async def close(self) -> None:
        """Closes the database."""
        if self._reader is not None:
            self._reader.close()


def _read(found: object, *keys: str) -> object:
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found
