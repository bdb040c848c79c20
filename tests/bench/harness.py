"""Measures ways of doing the same thing side by side: interleaved runs, medians, ratios."""

import asyncio
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

Operation = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Result:
    """One comparison: `ratio` is our figure over the other's, or over a limit, which `against` names.

    Of rates it is the median of the ratios of `runs` pairs, each measured one right after the other.
    """

    case: str
    ratio: float
    goal: float | None
    higher_is_better: bool
    against: str
    runs: int
    concurrency: int
    tenants: int
    machine: str
    load: float
    """What ran on the machine besides, as its load average says."""
    unit: str
    ours: float
    theirs: float

    @property
    def met(self) -> bool:
        """Whether the stated goal was reached; a case without a goal reports only."""
        if self.goal is None:
            return True
        return self.ratio >= self.goal if self.higher_is_better else self.ratio <= self.goal


class Bench:
    """Collects results and writes each to its file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results: list[Result] = []

    async def compare(
        self,
        case: str,
        ours: Operation,
        against: Operation,
        *,
        named: str,
        concurrency: int = 1,
        tenants: int = 1,
        goal: float | None = None,
        runs: int = 5,
        seconds: float = 1.0,
    ) -> Result:
        """Runs both in turns, `concurrency` at a time, and keeps the ratio of their median rates."""
        for warm in (ours, against):
            await rate(warm, concurrency, seconds / 4)
        rates: tuple[list[float], list[float]] = ([], [])
        for run in range(runs):
            # The order changes each time, so that drift of the machine falls on both alike.
            order = (0, 1) if run % 2 == 0 else (1, 0)
            for which in order:
                rates[which].append(await rate((ours, against)[which], concurrency, seconds))
        pairs = statistics.median(one / other for one, other in zip(*rates, strict=True))
        ours_, theirs = (statistics.median(series) for series in rates)
        measured = (ours_, theirs, "/s")
        return self.add(
            case, measured, named=named, ratio=pairs, goal=goal, runs=runs, concurrency=concurrency, tenants=tenants
        )

    def add(
        self,
        case: str,
        measured: tuple[float, float, str],
        *,
        named: str,
        ratio: float | None = None,
        goal: float | None = None,
        higher_is_better: bool = True,
        runs: int = 1,
        concurrency: int = 1,
        tenants: int = 1,
    ) -> Result:
        """Keeps what was measured: ours, the other's or the limit, and their unit."""
        ours, theirs, unit = measured
        result = Result(
            case=case,
            ratio=round(ours / theirs if ratio is None else ratio, 3),
            goal=goal,
            higher_is_better=higher_is_better,
            against=named,
            runs=runs,
            concurrency=concurrency,
            tenants=tenants,
            machine=f"{platform.machine()} × {os.cpu_count()}, Python {platform.python_version()}",
            load=round(os.getloadavg()[0], 1),
            unit=unit,
            ours=round(ours, 3),
            theirs=round(theirs, 3),
        )
        self.keep(result)
        return result

    def keep(self, result: Result) -> None:
        """Writes a result to its file and remembers it for the table."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{result.case}.json").write_text(json.dumps(asdict(result), indent=2) + "\n")
        self.results.append(result)
        sys.stdout.write(f"{result.case}: {result.ratio} × {result.against}\n")
        sys.stdout.flush()

    def table(self) -> str:
        """All results of this run, a line each."""
        head = f"{'case':<34} {'ours':>10} {'against':>10} {'':<3} {'ratio':>7} {'goal':>6}  against\n"
        return head + "".join(map(_line, self.results))


def _line(item: Result) -> str:
    goal = "–" if item.goal is None else f"{'≥' if item.higher_is_better else '≤'} {item.goal:g}"
    return (
        f"{item.case:<34} {item.ours:>10,.6g} {item.theirs:>10,.6g} {item.unit:<3} {item.ratio:>7} {goal:>6}  "
        f"{item.against}{'' if item.met else '  MISSED'}\n"
    )


async def rate(operation: Operation, concurrency: int, seconds: float) -> float:
    """Operations a second with `concurrency` of them under way."""
    done = 0
    began = time.perf_counter()
    until = began + seconds

    async def loop() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await operation()
            done += 1

    await asyncio.gather(*(loop() for _ in range(concurrency)))
    return done / (time.perf_counter() - began)
