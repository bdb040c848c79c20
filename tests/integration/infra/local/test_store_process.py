"""A store's process, with small shell scripts as stores: started, started again, and ended whatever it does."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.local.placement import Child, StoreError
from infra.local.store_process import StoreProcess


def process(folder: Path, script: str, **options: object) -> StoreProcess:
    """A store that answers as soon as its script has made `ready`."""
    return StoreProcess(
        "Store",
        folder,
        folder / "log",
        lambda: Child(("/bin/sh", "-c", script), None, folder),
        (folder / "ready").exists,
        lambda: None,
        ((signal.SIGTERM, 0.3),),
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture
def stubborn(tmp_path: Path) -> Iterator[StoreProcess]:
    """Runs, and does not listen to SIGTERM."""
    store = process(tmp_path, "trap '' TERM; touch ready; while :; do sleep 0.05; done")
    store.start()
    yield store
    store.stop()


def test_what_does_not_heed_its_signals_is_killed(stubborn: StoreProcess) -> None:
    pid = stubborn.pid()
    assert pid is not None
    stubborn.stop()
    assert not psutil.pid_exists(pid)
    assert stubborn.pid() is None


def test_what_is_held_still_is_killed(stubborn: StoreProcess) -> None:
    pid = stubborn.pid()
    assert pid is not None
    psutil.Process(pid).suspend()
    stubborn.stop()
    assert not psutil.pid_exists(pid)


def test_a_second_start_is_refused(stubborn: StoreProcess) -> None:
    with pytest.raises(StoreError, match=f"Store is already running on .* as process {stubborn.pid()}"):
        stubborn.start()


def test_a_failure_that_passes_is_tried_again(tmp_path: Path) -> None:
    store = process(
        tmp_path, "[ -e tried ] || { touch tried; echo not yet; exit 1; }; touch ready; sleep 60", passing="not yet"
    )
    store.start()
    store.stop()


def test_trying_again_has_an_end(tmp_path: Path) -> None:
    store = process(tmp_path, "echo not yet; exit 1", passing="not yet", start_seconds=0.3)
    with pytest.raises(StoreError, match=r"(?s)Store did not .*not yet$"):
        store.start()


def test_what_never_answers_is_ended_and_said(tmp_path: Path) -> None:
    store = process(tmp_path, "echo dreaming; exec sleep 60", start_seconds=0.3)
    with pytest.raises(StoreError, match=r"Store did not answer within 0 s:\ndreaming"):
        store.start()
    assert store.pid() is None
