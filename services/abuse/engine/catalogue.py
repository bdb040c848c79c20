"""Owns reading detectors from their files, strictly: what is not understood is refused, with its place."""

import hashlib
import itertools
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from services.abuse.domain.detector import Action, Condition, Detector, Given, Mode, Rung, Signal, SignalKind
from services.abuse.domain.finding import Scope
from services.abuse.engine.columns import FIELDS, HASHES, KEYS, NUMBERS, TEXTS
from services.abuse.engine.signals.distinct import HIGHEST_PRECISION

FOLDER = Path(__file__).resolve().parents[1] / "detectors"
DEFAULT_SLOTS = 1 << 15
MOST_SLOTS = 1 << 20
_LONGEST_WINDOW_SECONDS = 60 * 86_400
_DETECTOR = {
    "title", "family", "sees", "scope", "per_account", "mode", "events", "where", "signals", "prior", "ladder", "slots",
}  # fmt: skip
_SIGNAL = {"kind", "key", "where", "given", "window_seconds", "of", "over", "least", "precision", "steps"}
_NEEDS = {
    SignalKind.COUNT: {"key", "window_seconds"},
    SignalKind.SUM: {"key", "window_seconds", "of"},
    SignalKind.DISTINCT: {"key", "window_seconds", "of"},
    SignalKind.RATIO: {"of", "over"},
    SignalKind.AGE: {"key"},
    SignalKind.TRAVEL: {"key"},
    SignalKind.SURPRISE: {"key", "window_seconds", "steps"},
}
_MAY = {
    SignalKind.COUNT: {"given"},
    SignalKind.SUM: {"given"},
    SignalKind.DISTINCT: {"precision", "given"},
    SignalKind.RATIO: {"least"},
    SignalKind.SURPRISE: {"least"},
}
_RUNG = {"action", "confidence", "strikes", "seconds"}
_RANGE = {"least", "most", "not"}
_OVERRIDES = {"mode", "steps"}
T = TypeVar("T")


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
        detectors = []
        wanted = dict(overrides or {})
        for path in sorted(folder.glob("*.toml")):
            changed = wanted.pop(path.stem, {})
            detectors.append(read(path.stem, path.name, path.read_text(encoding="utf-8"), changed))
        if wanted:
            raise CatalogueError(f"overrides: {min(wanted)}: there is no such detector")
        return cls(tuple(detectors))


def read(name: str, file: str, text: str, overrides: Mapping[str, Any] | None = None) -> Detector:
    """Returns a detector from its text. Raises CatalogueError."""
    try:
        told = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CatalogueError(f"{file}: {error}") from error
    return _Reading(file).detector(name, _overridden(file, told, overrides or {}))


def _overridden(file: str, told: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in overrides.items():
        if key not in _OVERRIDES:
            raise CatalogueError(f"{file}: override {key}: only mode and steps can be changed")
        if key == "mode":
            told["mode"] = value
            continue
        if not isinstance(value, Mapping):
            raise CatalogueError(f"{file}: override steps: are by signal")
        for signal, steps in value.items():
            if signal not in told.get("signals", {}):
                raise CatalogueError(f"{file}: override steps.{signal}: there is no such signal")
            told["signals"][signal]["steps"] = steps
    return told


class _Reading:
    """One file being read."""

    def __init__(self, file: str) -> None:
        self._file = file

    def detector(self, name: str, told: dict[str, Any]) -> Detector:
        self._known("", told, _DETECTOR, _DETECTOR - {"where", "mode", "per_account", "slots"})
        version = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
        events = self._texts("events", told["events"])
        if not events:
            self._refuse("events", "names at least one; a request is the empty one")
        signals = self._signals(self._a("signals", told["signals"], dict))
        scope = self._one_of("scope", told["scope"], {scope.value: scope for scope in Scope})
        slots = self._between("slots", told.get("slots", DEFAULT_SLOTS), 8, MOST_SLOTS)
        return Detector(
            name=name,
            family=self._a("family", told["family"], str),
            title=self._a("title", told["title"], str),
            sees=self._a("sees", told["sees"], str),
            scope=scope,
            per_account=self._a("per_account", told.get("per_account", False), bool),
            mode=self._one_of("mode", told.get("mode", "enforce"), {mode.value: mode for mode in Mode}),
            events=events,
            where=self._where("where", told.get("where", {})),
            signals=signals,
            prior=self._number("prior", told["prior"]),
            ladder=self._ladder(told["ladder"]),
            slots=slots,
            version=f"{name}@{version}",
        )

    def _signals(self, told: dict[str, Any]) -> tuple[Signal, ...]:
        signals: dict[str, Signal] = {}
        for name, fields in told.items():
            signal = self._signal(name, self._a(f"signals.{name}", fields, dict))
            for part in ("of", "over") if signal.kind is SignalKind.RATIO else ():
                other = signals.get(getattr(signal, part))
                if other is None or other.kind is SignalKind.RATIO:
                    self._refuse(f"signals.{name}.{part}", "names a signal above it that counts")
            signals[name] = replace(
                signal, given=self._given(f"signals.{name}.given", fields.get("given", {}), signals)
            )
        if not any(signal.steps for signal in signals.values()):
            self._refuse("signals", "none of them has steps, so nothing is ever said")
        return tuple(signals.values())

    def _signal(self, name: str, told: dict[str, Any]) -> Signal:
        at = f"signals.{name}"
        self._known(at, told, _SIGNAL, {"kind"})
        kind = self._one_of(f"{at}.kind", told["kind"], {kind.value: kind for kind in SignalKind})
        needs = _NEEDS[kind]
        may = needs | _MAY.get(kind, set()) | {"steps", "kind"} | ({"where"} if kind is not SignalKind.RATIO else set())
        for extra in sorted(told.keys() - may):
            self._refuse(f"{at}.{extra}", f"a signal of kind {kind.value} has none")
        self._known(at, told, _SIGNAL, needs)
        key = self._texts(f"{at}.key", told.get("key", []))
        for field in key:
            if field not in KEYS:
                self._refuse(f"{at}.key", f"nothing is counted by {field!r}; there are {', '.join(sorted(KEYS))}")
        if "key" in needs and not key:
            self._refuse(f"{at}.key", "names at least one field")
        of = self._a(f"{at}.of", told.get("of", ""), str)
        countable = {SignalKind.DISTINCT: KEYS, SignalKind.SUM: NUMBERS}.get(kind)
        if countable is not None and of not in countable:
            self._refuse(f"{at}.of", f"there is no such field; there are {', '.join(sorted(countable))}")
        window = told.get("window_seconds", 0)
        if "window_seconds" in needs:
            window = self._between(f"{at}.window_seconds", window, 1, _LONGEST_WINDOW_SECONDS)
        if kind is SignalKind.SURPRISE and (window > 3600 or 3600 % window):
            self._refuse(f"{at}.window_seconds", "divides an hour")
        return Signal(
            name=name,
            kind=kind,
            key=key,
            where=self._where(f"{at}.where", told.get("where", {})),
            window_seconds=window,
            of=of,
            over=self._a(f"{at}.over", told.get("over", ""), str),
            least=self._number(f"{at}.least", told.get("least", 0.0)),
            precision=self._between(f"{at}.precision", told.get("precision", 7), 4, HIGHEST_PRECISION),
            steps=self._steps(f"{at}.steps", told.get("steps", [])),
        )

    def _given(self, at: str, told: Any, above: Mapping[str, Signal]) -> tuple[Given, ...]:
        given = []
        for name, bounds in self._a(at, told, dict).items():
            other = above.get(name)
            if other is None or other.kind is SignalKind.RATIO or other.given:
                self._refuse(f"{at}.{name}", "names a signal above it that counts, and is itself given nothing")
            self._known(f"{at}.{name}", self._a(f"{at}.{name}", bounds, dict), _RANGE - {"not"}, set())
            least, most = (
                None if bounds.get(bound) is None else self._number(f"{at}.{name}", bounds[bound])
                for bound in ("least", "most")
            )
            if least is None and most is None:
                self._refuse(f"{at}.{name}", "has least or most")
            given.append(Given(other, least, most))
        return tuple(given)

    def _steps(self, at: str, told: Any) -> tuple[tuple[float, float], ...]:
        steps = []
        for step in self._a(at, told, list):
            if not isinstance(step, list) or len(step) != 2:
                self._refuse(at, "each is [threshold, log-odds]")
            steps.append((self._number(at, step[0]), self._number(at, step[1])))
        if any(one[0] >= other[0] for one, other in itertools.pairwise(steps)):
            self._refuse(at, "thresholds rise")
        return tuple(steps)

    def _where(self, at: str, told: Any) -> tuple[Condition, ...]:
        conditions = []
        for field, wanted in self._a(at, told, dict).items():
            if field not in FIELDS:
                self._refuse(f"{at}.{field}", f"there is no such field; there are {', '.join(sorted(FIELDS))}")
            conditions.append(self._condition(f"{at}.{field}", field, wanted))
        return tuple(conditions)

    def _condition(self, at: str, field: str, wanted: Any) -> Condition:
        if isinstance(wanted, bool):
            return Condition(field, present=wanted)
        if isinstance(wanted, dict):
            self._known(at, wanted, _RANGE, set())
            if "not" in wanted:
                if len(wanted) > 1:
                    self._refuse(at, "`not` stands alone")
                return Condition(field, values=self._values(at, field, wanted["not"]), negated=True)
            if field not in NUMBERS:
                self._refuse(at, "only numbers have a range")
            least, most = (wanted.get(key) for key in ("least", "most"))
            for bound in (least, most):
                if bound is not None:
                    self._a(at, bound, int)
            return Condition(field, least=least, most=most)
        return Condition(field, values=self._values(at, field, wanted))

    def _values(self, at: str, field: str, wanted: Any) -> tuple[str | int, ...]:
        if field in HASHES:
            self._refuse(at, "a keyed hash is there (true) or is not (false)")
        values = wanted if isinstance(wanted, list) else [wanted]
        kind = str if field in TEXTS else int
        if not values or any(type(value) is not kind for value in values):
            self._refuse(at, f"one or more of type {kind.__name__}")
        return tuple(values)

    def _ladder(self, told: Any) -> tuple[Rung, ...]:
        rungs = []
        for number, rung in enumerate(self._a("ladder", told, list)):
            at = f"ladder[{number}]"
            self._known(at, self._a(at, rung, dict), _RUNG, _RUNG - {"strikes"})
            confidence = self._number(f"{at}.confidence", rung["confidence"])
            if not 0.5 <= confidence < 1:
                self._refuse(f"{at}.confidence", "is from 0.5 to under 1")
            rungs.append(
                Rung(
                    action=self._one_of(f"{at}.action", rung["action"], {a.name.lower(): a for a in Action}),
                    confidence=confidence,
                    strikes=self._between(f"{at}.strikes", rung.get("strikes", 0), 0, 100),
                    seconds=self._between(f"{at}.seconds", rung["seconds"], 1, 30 * 86_400),
                )
            )
        if not rungs:
            self._refuse("ladder", "has a rung")
        if any(one.action >= other.action for one, other in itertools.pairwise(rungs)):
            self._refuse("ladder", "each rung is harder than the one before")
        return tuple(rungs)

    def _known(self, at: str, told: Mapping[str, Any], may: set[str], must: set[str]) -> None:
        prefix = f"{at}." if at else ""
        for key in sorted(told.keys() - may):
            self._refuse(f"{prefix}{key}", f"unknown key; there are {', '.join(sorted(may))}")
        for key in sorted(must - told.keys()):
            self._refuse(f"{prefix}{key}", "is missing")

    def _one_of(self, at: str, told: Any, among: Mapping[str, T]) -> T:
        if not isinstance(told, str) or told not in among:
            self._refuse(at, f"is one of {', '.join(among)}")
        return among[told]

    def _between(self, at: str, told: Any, least: int, most: int) -> int:
        number = self._a(at, told, int)
        if not least <= number <= most:
            self._refuse(at, f"is from {least} to {most}")
        return number

    def _number(self, at: str, told: Any) -> float:
        if type(told) not in (int, float) or not -1e12 < told < 1e12:
            self._refuse(at, "is a number")
        return float(told)

    def _texts(self, at: str, told: Any) -> tuple[str, ...]:
        if not isinstance(told, list) or not all(isinstance(text, str) for text in told):
            self._refuse(at, "is a list of texts")
        if len(set(told)) < len(told):
            self._refuse(at, "names nothing twice")
        return tuple(told)

    def _a(self, at: str, told: Any, kind: type[T]) -> T:
        if type(told) is not kind:
            self._refuse(at, f"is of type {kind.__name__}")
        return told

    def _refuse(self, at: str, why: str) -> NoReturn:
        raise CatalogueError(f"{self._file}: {at}: {why}")
