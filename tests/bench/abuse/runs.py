"""Owns which worlds are looked at with which defences: seeds that detectors were tuned on, and seeds they were not."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from multiprocessing import get_context
from operator import attrgetter

from services.abuse.domain.detector import Detector
from services.abuse.engine.catalogue import Catalogue
from tests.bench.abuse.ours import Ours
from tests.support.traffic import baselines
from tests.support.traffic.attackers import campaigns
from tests.support.traffic.honest import population
from tests.support.traffic.simulation import Defence, Outcome, run
from tests.support.traffic.world import Actor, World

TUNED = tuple(range(1, 7))
HELD_OUT = tuple(range(101, 109))

BASELINES: dict[str, Callable[[], Defence]] = {
    "nothing": baselines.Open,
    "5 in 10 s per address": baselines.Bucket,
    "static limits": baselines.Static,
}


@dataclass(frozen=True)
class Job:
    """One world and what stands against it."""

    seed: int
    defence: str = "ours"
    without: tuple[str, ...] = ()
    """Detectors that are left out."""
    pace: float = 1.0
    attacks: bool = True


@dataclass
class Ran:
    """What came of a job; the actors' behaviours, which cannot be sent between processes, are gone."""

    job: Job
    outcome: Outcome
    judged: list[tuple[float, bool]]
    """Confidence of each decision, and whether it was about an attacker's entity."""
    decided: int


def play(job: Job) -> Ran:
    """Runs a job; in a process of its own."""
    world = World(job.seed, pace=job.pace)
    actors: list[Actor] = population(world)
    if job.attacks:
        actors += campaigns(world)
    defence = BASELINES[job.defence]() if job.defence in BASELINES else Ours(_detectors(job.without))
    outcome = run(world, actors, defence)
    judged: list[tuple[float, bool]] = []
    decided = 0
    if isinstance(defence, Ours):
        decided = len(defence.decisions)
        for decision in defence.decisions:
            honest, bad = outcome.uses.get(decision.entity, [0, 0])
            judged.append((decision.confidence, bad > honest))
    for record in outcome.records:
        record.actor.behaviour.close()
        record.actor.behaviour = None  # type: ignore[assignment]
    outcome.uses.clear()
    outcome.uses.default_factory = None  # type: ignore[attr-defined]
    return Ran(job, outcome, judged, decided)


def play_all(jobs: Sequence[Job], processes: int, say: Callable[[str], None]) -> Iterator[Ran]:
    """Runs jobs side by side and yields each as it is done."""
    # A process for each: an engine reserves memory for all that it may ever hold.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for number, ran in enumerate(pool.map(play, jobs), 1):
            job = ran.job
            against = job.defence + (f" without {', '.join(job.without)}" if job.without else "")
            say(f"{number} of {len(jobs)}: seed {job.seed}, {against}, {ran.outcome.events:,} events")
            yield ran


def outcomes_of(ran: Iterable[Ran]) -> list[Outcome]:
    """Returns what came of jobs."""
    return [one.outcome for one in ran]


def one_of_each(detectors: Iterable[Detector]) -> list[tuple[str, ...]]:
    """Returns which detectors are left out together: one of each family, so that a few runs say what each is worth to
    its own family.
    """
    columns = zip_longest(*(map(attrgetter("name"), some) for some in _families(detectors).values()))
    return [tuple(name for name in column if name) for column in columns]


def whole_families(detectors: Iterable[Detector], rounds: int = 4) -> list[tuple[str, ...]]:
    """Returns which families are left out together: in each round some, so that what is found of them is found by the
    detectors of others.
    """
    families = list(_families(detectors).values())
    return [tuple(one.name for family in families[number::rounds] for one in family) for number in range(rounds)]


def simulated(family: str) -> str:
    """Returns what the simulator calls a detector's family."""
    return family.replace("_", " ").removeprefix("api ")


def _families(detectors: Iterable[Detector]) -> dict[str, list[Detector]]:
    kept: dict[str, list[Detector]] = defaultdict(list)
    for detector in detectors:
        kept[detector.family].append(detector)
    return kept


def _detectors(without: tuple[str, ...]) -> tuple[Detector, ...]:
    return tuple(one for one in Catalogue.load().detectors if one.name not in without)
