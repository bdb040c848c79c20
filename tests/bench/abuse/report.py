"""Owns the report: one page that a person reads, with plots, and one line that a machine reads."""

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot
from matplotlib.figure import Figure

from tests.bench.abuse.scoring import GOALS, Score, Share, easy_recall
from tests.support.traffic.attackers import FAMILIES
from tests.support.traffic.world import Level

LEVELS = [level.name.lower() for level in Level]


@dataclass(frozen=True)
class Loss:
    """What leaving something out costs."""

    family: str
    before: Share
    """Recall of the family with everything."""
    after: Share


@dataclass(frozen=True)
class Findings:
    """Everything that the page shows."""

    seeds: Sequence[int]
    scores: Mapping[str, Score]
    """By defence; `ours` among them."""
    tuned: Score
    """Ours on the seeds that detectors were tuned on."""
    without: Mapping[str, Loss]
    """By detector that was left out."""
    by_others: Mapping[str, Loss]
    """By family all of whose detectors were left out."""
    pace: Mapping[float, Score]
    """By how many times slower attackers are."""
    calibration: Sequence[tuple[float, float, int]]
    shuffled: tuple[float, float]
    decisions_a_day: float


def misses(found: Findings) -> list[str]:
    """Returns the goals that ours misses."""
    ours = found.scores["ours"]
    reached = {
        "precision": ours.precision.value,
        "recall": ours.recall.value,
        "recall, naive and distributed": easy_recall(ours).value,
        "honest requests refused": ours.refused_honest.value,
    }
    low = [name for name in list(GOALS)[:3] if reached[name] < GOALS[name]]
    return low + ["honest requests refused"] * (reached["honest requests refused"] > GOALS["honest requests refused"])


def line(found: Findings) -> str:
    """Returns the summary."""
    ours = found.scores["ours"]
    missed = misses(found)
    return (
        f"abuse-report: precision {ours.precision.value:.3f}, recall {ours.recall.value:.3f}, naive and distributed "
        f"{easy_recall(ours).value:.3f}, honest requests refused {ours.refused_honest.value * 10_000:.2f} in 10,000, "
        f"{'goals met' if not missed else 'missed: ' + ', '.join(missed)}"
    )


def write(found: Findings, folder: Path) -> Path:
    """Writes the page and returns where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    page.write_text(_page(found), encoding="utf-8")
    return page


def _page(found: Findings) -> str:
    ours = found.scores["ours"]
    parts = [
        f"<p>Seeds {', '.join(map(str, found.seeds))}, which no detector was tuned on; {ours.events:,} events. "
        "An actor counts as found when anything was asked of it or refused to it: a challenge (passed or not), "
        "a throttle, a block. Intervals are Wilson's, 95 %. Other seeds are other people, addresses and times, and not "
        "other habits: real traffic has more of those, and gives lower figures.</p>",
        f"<p class='{'bad' if misses(found) else 'good'}'>{html.escape(line(found))}</p>",
        "<h2>Beside other defences</h2>",
        _table(
            ("defence", "precision", "recall", "F1", "naive and distributed", "refused of 10,000 honest", "gain kept"),
            [
                (
                    name,
                    _short(score.precision),
                    _short(score.recall),
                    f"{score.f1:.3f}",
                    _short(easy_recall(score)),
                    f"{score.refused_honest.value * 10_000:.2f}",
                    f"{score.damage_kept:.0%}",
                )
                for name, score in {**found.scores, "ours, seeds tuned on": found.tuned}.items()
            ],
        ),
        f"<p>Ours on these seeds: {ours.precision.part} attackers found of {ours.recall.whole}, and "
        f"{ours.precision.whole - ours.precision.part} honest actors suspected; honest requests refused: "
        f"{ours.refused_honest.part} of {ours.refused_honest.whole:,}, those of attacks' victims among them. "
        "A dash is the precision of a defence that suspected nobody.</p>",
        _svg(_bars(found)),
        "<h2>What is found, by family and level</h2>",
        _svg(_heat(ours)),
        "<h2>How soon, and at what cost</h2>",
        _table(
            ("figure", "value"),
            [
                ("first request to first action, median", f"{ours.seconds[0]:.0f} s"),
                ("the same, 95th of a hundred", f"{ours.seconds[1]:.0f} s"),
                ("gain before the first action, of all that could be gained", f"{ours.damage_before:.1%}"),
                ("gain kept in all", f"{ours.damage_kept:.1%}"),
                ("changes between served and refused for an attack found", f"{ours.flaps:.1f}"),
                ("honest actors that something was asked of, in 1,000 days", f"{ours.per_thousand_days:.2f}"),
                ("decisions a day", f"{found.decisions_a_day:.0f}"),
                (
                    "precision with labels dealt out anew; share of attackers",
                    f"{found.shuffled[0]:.3f}; {found.shuffled[1]:.3f}",
                ),
            ],
        ),
        "<h2>Honest actors that something was asked of</h2>",
        _table(("kind", "share"), [(kind, str(share)) for kind, share in sorted(ours.wrongly.items())]),
        "<h2>Each detector left out</h2>",
        "<p>What is still found of its family, on the first of the seeds. One detector of each family is left out at a "
        "time: what others of the family find as well is there twice, as a second line.</p>",
        _table(("left out", "family", "found with it", "still found"), [_lost(n, w) for n, w in found.without.items()]),
        "<h2>Each family left out</h2>",
        "<p>What detectors of other families find of an attack that none was written for.</p>",
        _table(
            ("family", "found with its detectors", "found by others"),
            [_lost(n, w)[1:] for n, w in found.by_others.items()],
        ),
        "<h2>What evading costs</h2>",
        "<p>Attackers who pause longer are found less, and gain less in the same hours.</p>",
        _svg(_evasion(found.pace)),
        "<h2>Is confidence what it says?</h2>",
        _svg(_calibrated(found.calibration)),
    ]
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem;color:#1c2430}"
        "table{border-collapse:collapse;display:block;overflow-x:auto;margin:1rem 0}td,th{padding:.35rem .6rem;"
        "border-bottom:1px solid #d9dee6;text-align:left;white-space:nowrap}svg{max-width:100%;height:auto}"
        "tr:first-child th{background:#f2f4f7}.good{color:#0a6b3d;font-weight:600}.bad{color:#a3261d;font-weight:600}"
    )
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>Abuse report</title><style>{style}</style><h1>Abuse detection on labelled traffic</h1>{''.join(parts)}"
    )


def _lost(name: str, loss: Loss) -> tuple[str, str, str, str]:
    before, after = loss.before, loss.after
    return name, loss.family, f"{before.part} of {before.whole}", f"{after.part} of {after.whole}"


def _short(share: Share) -> str:
    low, high = share.interval
    return f"{share.value:.3f} ({low:.3f} to {high:.3f})" if share.whole else "–"


def by_family(score: Score) -> dict[str, Share]:
    """Returns recall by family."""
    kept: dict[str, list[Share]] = {}
    for (family, _), share in score.by_cell.items():
        kept.setdefault(family, []).append(share)
    return {f: Share(sum(s.part for s in shares), sum(s.whole for s in shares)) for f, shares in kept.items()}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _svg(figure: Figure) -> str:
    written = io.StringIO()
    figure.savefig(written, format="svg", bbox_inches="tight")
    pyplot.close(figure)
    text = written.getvalue()
    return text[text.index("<svg") :]


def _bars(found: Findings) -> Figure:
    figure, axes = pyplot.subplots(figsize=(8, 3))
    names = list(found.scores)
    for offset, (pick, color) in enumerate((("precision", "#27496d"), ("recall", "#d98a29"))):
        shares = [(index, getattr(found.scores[name], pick)) for index, name in enumerate(names)]
        # Where nobody was suspected there is no precision.
        shares = [(index, share) for index, share in shares if share.whole]
        values = [share.value for _, share in shares]
        low = [max(0.0, share.value - share.interval[0]) for _, share in shares]
        high = [max(0.0, share.interval[1] - share.value) for _, share in shares]
        places = [index + offset * 0.35 for index, _ in shares]
        axes.bar(places, values, 0.33, yerr=(low, high), label=pick, capsize=3, color=color)
    axes.set_xticks([index + 0.17 for index in range(len(names))], names)
    axes.set_ylim(0, 1.05)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _heat(score: Score) -> Figure:
    families = list(FAMILIES)
    figure, axes = pyplot.subplots(figsize=(8, 5))
    grid = [
        [score.by_cell[family, level].value if (family, level) in score.by_cell else float("nan") for level in Level]
        for family in families
    ]
    axes.imshow(grid, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto", alpha=0.55)
    axes.set_xticks(range(len(LEVELS)), LEVELS)
    axes.set_yticks(range(len(families)), families)
    for y, row in enumerate(grid):
        for x, value in enumerate(row):
            axes.text(x, y, f"{value:.2f}", ha="center", va="center")
    return figure


def _evasion(pace: Mapping[float, Score]) -> Figure:
    figure, axes = pyplot.subplots(figsize=(8, 3))
    slower = sorted(pace)
    axes.plot(slower, [pace[times].recall.value for times in slower], marker="o", label="found")
    axes.plot(slower, [pace[times].damage_kept for times in slower], marker="s", label="gain kept of what it asks for")
    axes.set_xscale("log", base=2)
    axes.set_xticks(slower, [f"{times:g}" for times in slower])
    axes.set_xlabel("times slower")
    axes.set_ylim(0, 1.05)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _calibrated(points: Sequence[tuple[float, float, int]]) -> Figure:
    figure, axes = pyplot.subplots(figsize=(5, 4))
    axes.plot((0.5, 1), (0.5, 1), linestyle=":", color="grey")
    axes.plot([said for said, _, _ in points], [was for _, was, _ in points], marker="o")
    for said, was, number in points:
        axes.annotate(f"{number}", (said, was), textcoords="offset points", xytext=(4, -12))
    axes.set_xlabel("confidence")
    axes.set_ylabel("share that were attackers'")
    axes.set_ylim(0, 1.05)
    return figure
