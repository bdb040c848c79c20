"""Owns reading detectors from their files, strictly."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.abuse.domain.detector import Detector

FOLDER = Path(__file__).resolve().parents[1] / "detectors"


class CatalogueError(ValueError):
    """A detector that cannot be used: file, key and why."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All detectors, in the order of their names."""

    detectors: tuple[Detector, ...]

    @classmethod
    def load(cls, folder: Path = FOLDER, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> "Catalogue":
        """Reads every `*.toml` of a folder. `overrides` are what staff changed, by detector: `mode`, and `steps` by
        signal. Raises CatalogueError, naming file and key.
        """
        raise NotImplementedError
