"""Runs every world against every defence and writes the report: `python -m tests.bench.abuse [--quick]`."""

import argparse
import os
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path

from services.abuse.domain.detector import Detector
from services.abuse.engine.catalogue import Catalogue
from tests.bench.abuse import report
from tests.bench.abuse.runs import (
    BASELINES,
    HELD_OUT,
    TUNED,
    Job,
    Ran,
    one_of_each,
    outcomes_of,
    play_all,
    simulated,
    whole_families,
)
from tests.bench.abuse.scoring import Share, calibration, score, shuffled_precision
from tests.support.traffic.world import DAY

PACES = (1.0, 2.0, 4.0, 8.0, 16.0)


def main() -> int:
    """Returns 0 when all goals were met."""
    asked = argparse.ArgumentParser(prog="abuse-report")
    asked.add_argument("--quick", action="store_true", help="two seeds, nothing left out")
    asked.add_argument("--folder", type=Path, default=Path("build/abuse-report"))
    given = asked.parse_args()
    seeds = HELD_OUT[:2] if given.quick else HELD_OUT
    detectors = () if given.quick else Catalogue.load().detectors
    rounds, families = (one_of_each(detectors), whole_families(detectors)) if detectors else ([], [])
    some = seeds[:1]
    paces = PACES[:1] if given.quick else PACES
    jobs = [Job(seed, defence) for seed in seeds for defence in ("ours", *BASELINES)]
    jobs += [Job(seed) for seed in (TUNED[:2] if given.quick else TUNED)]
    jobs += [Job(seed, without=names) for names in (*rounds, *families) for seed in some]
    jobs += [Job(seed, pace=pace) for pace in paces[1:] for seed in some]
    ran = list(play_all(jobs, os.cpu_count() or 1, _say))

    def chosen(**wanted: object) -> list[Ran]:
        whole = {"defence": "ours", "without": (), "pace": 1.0, **wanted}
        return [one for one in ran if all(getattr(one.job, name) == value for name, value in whole.items())]

    held_out = [one for one in chosen() if one.job.seed in HELD_OUT]
    scores = {
        name: score(outcomes_of(one for one in chosen(defence=name) if one.job.seed in HELD_OUT))
        for name in ("ours", *BASELINES)
    }

    def families_found(without: tuple[str, ...] = ()) -> dict[str, Share]:
        return report.by_family(score(outcomes_of(one for one in chosen(without=without) if one.job.seed in some)))

    def lost(left_out: list[tuple[str, ...]], named: Callable[[Detector], str]) -> dict[str, report.Loss]:
        after = {names: families_found(names) for names in left_out}
        losses = {}
        for detector in detectors:
            [names] = [names for names in left_out if detector.name in names]
            family = simulated(detector.family)
            nothing = Share(0, 0)
            losses[named(detector)] = report.Loss(
                family, before.get(family, nothing), after[names].get(family, nothing)
            )
        return losses

    before = families_found()
    without, by_others = lost(rounds, attrgetter("name")), lost(families, attrgetter("family"))
    days = sum(one.outcome.world.seconds for one in held_out) / DAY
    found = report.Findings(
        seeds=seeds,
        scores=scores,
        tuned=score(outcomes_of(one for one in chosen() if one.job.seed in TUNED)),
        without=without,
        by_others=by_others,
        pace={pace: score(outcomes_of(one for one in chosen(pace=pace) if one.job.seed in some)) for pace in paces},
        calibration=calibration(pair for one in held_out for pair in one.judged),
        shuffled=shuffled_precision(outcomes_of(held_out)),
        decisions_a_day=sum(one.decided for one in held_out) / days,
    )
    page = report.write(found, given.folder)
    _say(f"the report is {page}")
    _say(report.line(found))
    return 1 if report.misses(found) else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
