"""Runs every world against every defence and writes the report: `python -m tests.bench.abuse [--quick]`."""

import argparse
import os
import sys
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
    asked.add_argument("--quick", action="store_true", help="two seeds, no ablation")
    asked.add_argument("--folder", type=Path, default=Path("build/abuse-report"))
    given = asked.parse_args()
    seeds = HELD_OUT[:2] if given.quick else HELD_OUT
    detectors = () if given.quick else Catalogue.load().detectors
    rounds, families = (one_of_each(detectors), whole_families(detectors)) if detectors else ([], [])
    some = seeds[:2]
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

    def found_of(detector: Detector, left_out: list[tuple[str, ...]]) -> Share:
        [names] = [names for names in left_out if detector.name in names]
        kept = [one for one in chosen(without=names) if one.job.seed in some]
        return report.by_family(score(outcomes_of(kept)))[simulated(detector.family)]

    before = report.by_family(score(outcomes_of(one for one in chosen() if one.job.seed in some)))
    without = {
        one.name: report.Loss(simulated(one.family), before[simulated(one.family)], found_of(one, rounds))
        for one in detectors
    }
    by_others = {
        one.family: report.Loss(simulated(one.family), before[simulated(one.family)], found_of(one, families))
        for one in detectors
    }
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
