"""Tests of libs/kill_points."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from libs.kill_points import KillPoints


def test_without_configuration_a_point_does_nothing(tmp_path: Path) -> None:
    KillPoints("billing").at("commit", "after", "create_checkout")

    assert list(tmp_path.iterdir()) == []


def test_every_point_passed_is_written_down(tmp_path: Path) -> None:
    points = KillPoints("billing", kill_log=tmp_path / "points")

    points.at("commit", "before", "create_checkout")
    points.at("call", "after", "EnsureSubject")

    assert (tmp_path / "points").read_text() == (
        "billing:before-commit:create_checkout\nbilling:after-call:EnsureSubject\n"
    )


def test_the_process_dies_at_its_point_and_nowhere_else(tmp_path: Path) -> None:
    deaths: list[str] = []
    points = KillPoints(
        "billing",
        kill_at="billing:after-commit:a",
        kill_log=tmp_path / "points",
        die=lambda: deaths.append("died"),
    )

    points.at("commit", "before", "a")
    points.at("commit", "after", "b")
    points.at("publish", "after", "a")
    assert deaths == []
    points.at("commit", "after", "a")
    assert deaths == ["died"]


def test_a_point_of_another_service_is_passed(tmp_path: Path) -> None:
    deaths: list[str] = []
    points = KillPoints(
        "notify", kill_at="billing:after-commit:a", kill_log=tmp_path / "points", die=lambda: deaths.append("died")
    )

    points.at("commit", "after", "a")

    assert deaths == []


def test_the_nth_passing_is_the_one_that_counts(tmp_path: Path) -> None:
    deaths: list[int] = []
    passed = 0
    points = KillPoints(
        "billing",
        kill_at="billing:after-commit:a#3",
        kill_log=tmp_path / "points",
        die=lambda: deaths.append(passed),
    )

    for passed in range(1, 6):  # noqa: B007 — read when dying
        points.at("commit", "after", "a")

    assert deaths == [3]


def test_the_process_started_next_passes_the_point(tmp_path: Path) -> None:
    deaths: list[str] = []
    for _ in range(2):
        points = KillPoints(
            "billing", kill_at="billing:after-ack:a", kill_log=tmp_path / "points", die=lambda: deaths.append("died")
        )
        points.at("ack", "after", "a")

    assert deaths == ["died"]
    assert (tmp_path / "points.killed").read_text() == "billing:after-ack:a#1\n"


def test_dying_is_sigkill(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from libs.kill_points import KillPoints;"
        "KillPoints('x', kill_at='x:after-call:y', kill_log=pathlib.Path(sys.argv[1])).at('call', 'after', 'y');"
        "print('alive')"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "points")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "")


def test_a_point_to_die_at_needs_a_log_to_remember_it_by() -> None:
    with pytest.raises(ValueError, match="kill_log"):
        KillPoints("billing", kill_at="billing:after-commit:a")
