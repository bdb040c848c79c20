"""Owns detectors as operators see and change them, and the catalogue that results."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from gatefold.abuse.v1 import detector_pb2

from libs import errors
from libs.clock import WallClock
from libs.postgres import Database
from services.abuse.domain.detector import Detector, Mode
from services.abuse.domain.precision import Precision
from services.abuse.engine.catalogue import Catalogue, CatalogueError
from services.abuse.repository import detectors, verdicts
from services.abuse.repository.detectors import Setting, Steps
from services.abuse.usecases import present

HITS_OF = timedelta(days=30)

Load = Callable[[Mapping[str, Mapping[str, Any]]], Catalogue]
"""Reads the catalogue with what was changed, by detector; raises CatalogueError."""


class Detectors:
    """The catalogue, and what was changed about it."""

    def __init__(self, db: Database, jobs: Database, clock: WallClock, load: Load) -> None:
        self._db = db
        self._jobs = jobs
        self._clock = clock
        self._load = load
        self._loaded: tuple[int, Catalogue] | None = None

    async def catalogue(self) -> Catalogue:
        """Returns detectors as they are to be; the same object until somebody changes one."""
        async with self._db.transaction("read_detector_settings", read_only=True) as conn:
            return self._with(await detectors.settings(conn))

    async def list_detectors(self) -> detector_pb2.ListDetectorsResponse:
        """Returns all detectors with their hits and precision."""
        async with self._db.transaction("read_detector_settings", read_only=True) as conn:
            held = await detectors.settings(conn)
        since = self._clock.wall() - HITS_OF
        async with self._jobs.transaction("count_detectors", read_only=True) as conn:
            hits = await verdicts.hits(conn, since)
            agreed = await detectors.precision_everywhere(
                conn, {name: setting.changed_at for name, setting in held.items()}
            )
            demoted = await detectors.demotions(conn)
        return detector_pb2.ListDetectorsResponse(
            data=[
                _shown(
                    detector,
                    held[detector.name].revision if detector.name in held else 0,
                    hits.get(detector.name, 0),
                    agreed.get(detector.name),
                    demoted.get(detector.name, 0),
                )
                for detector in self._with(held).detectors
            ]
        )

    async def tune(self, name: str, revision: int, mode: Mode, steps: Steps, actor: str) -> detector_pb2.Detector:
        """Changes a detector for all accounts, where it begins anew: demotions end, labels count from now on.

        Raises `not_found("detector_not_found")`, `conflict("detector_changed")`,
        `precondition("detector_shadow_first")` for thresholds that would be enforced at once, and
        `invalid("detector_steps")` for thresholds that cannot be used.
        """
        async with self._db.transaction("read_detector_settings", read_only=True) as conn:
            held = await detectors.settings(conn)
        known = {detector.name for detector in self._with(held).detectors}
        if name not in known:
            raise errors.not_found("detector_not_found", "There is no such detector.")
        before = held.get(name)
        if revision != (before.revision if before else 0):
            raise errors.conflict("detector_changed", "Somebody else has changed this detector; read it again.")
        if steps and mode is Mode.ENFORCE:
            raise errors.precondition("detector_shadow_first", "New thresholds are tried in shadow first.")
        kept = dict(before.steps) if before else {}
        wanted = Setting(name, revision + 1, mode, {**kept, **steps}, actor, self._clock.wall())
        try:
            self._load({name: _override(wanted)})
        except CatalogueError as error:
            raise errors.invalid("detector_steps", str(error), field="signals") from None
        async with self._db.transaction("tune_detector") as conn:
            if not await detectors.add_setting(conn, wanted):
                raise errors.conflict("detector_changed", "Somebody else has changed this detector; read it again.")
        async with self._jobs.transaction("restore_detector") as conn:
            await detectors.restore(conn, name)
        shown = await self.list_detectors()
        return next(detector for detector in shown.data if detector.name == name)

    def _with(self, held: Mapping[str, Setting]) -> Catalogue:
        changes = sum(setting.revision for setting in held.values())
        if self._loaded is None or self._loaded[0] != changes:
            self._loaded = (changes, self._read({name: _override(setting) for name, setting in held.items()}))
        return self._loaded[1]

    def _read(self, overrides: Mapping[str, Mapping[str, Any]]) -> Catalogue:
        try:
            return self._load(overrides)
        except CatalogueError:
            # A newer release may know a detector, or one of its signals, no longer: what fits still counts.
            return self._load({name: override for name, override in overrides.items() if self._fits(name, override)})

    def _fits(self, name: str, override: Mapping[str, Any]) -> bool:
        try:
            self._load({name: override})
        except CatalogueError:
            return False
        return True


def _override(setting: Setting) -> dict[str, Any]:
    changed: dict[str, Any] = {"mode": setting.mode.value}
    if setting.steps:
        changed["steps"] = setting.steps
    return changed


def _shown(
    detector: Detector, revision: int, hits: int, agreed: Precision | None, demoted: int
) -> detector_pb2.Detector:
    return detector_pb2.Detector(
        name=detector.name,
        family=detector.family,
        title=detector.title,
        sees=detector.sees,
        scope=detector.scope.value,
        mode=present.MODES[detector.mode],
        rule_version=detector.version,
        revision=revision,
        signals=[
            detector_pb2.Signal(
                name=signal.name,
                kind=signal.kind.value,
                window_seconds=signal.window_seconds,
                steps=[detector_pb2.Step(threshold=least, weight=weight) for least, weight in signal.steps],
            )
            for signal in detector.signals
        ],
        hits=hits,
        precision=present.precision(agreed),
        demoted_accounts=demoted,
    )
