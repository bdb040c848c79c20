"""Measures what the abuse service finds of labelled traffic on seeds that no detector was tuned on."""

import os

from tests.bench.abuse.runs import BASELINES, HELD_OUT, Job, outcomes_of, play_all
from tests.bench.abuse.scoring import GOALS, easy_recall, score
from tests.bench.harness import Bench


async def measure(bench: Bench) -> None:
    """Runs two of the seeds; `make abuse-report` runs all, and shows more."""
    jobs = [Job(seed, defence) for seed in HELD_OUT[:2] for defence in ("ours", *BASELINES)]
    ran = list(play_all(jobs, os.cpu_count() or 1, lambda _: None))
    for name in ("ours", *BASELINES):
        figures = score(outcomes_of(one for one in ran if one.job.defence == name))
        goals = GOALS if name == "ours" else dict.fromkeys(GOALS)
        reached = {
            "precision": figures.precision.value,
            "recall": figures.recall.value,
            "recall, naive and distributed": easy_recall(figures).value,
            "honest requests refused": figures.refused_honest.value,
        }
        for figure, value in reached.items():
            case = f"abuse-{name}-{figure}".replace(",", "").replace(" ", "-")
            up = figure != "honest requests refused"
            bench.add(case, (value, 1.0, ""), named="all", goal=goals[figure], higher_is_better=up)
