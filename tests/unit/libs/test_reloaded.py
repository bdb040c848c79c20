"""What is made of files is made anew when they change, and only of files that can be used."""

import io
from pathlib import Path

import pytest

from libs.reloaded import Reloaded
from libs.telemetry import Telemetry


class Pair:
    """Two files that belong together, when both say the same."""

    def __init__(self, folder: Path) -> None:
        self.files = (folder / "one", folder / "two")
        self.telemetry = Telemetry("tests", stream=io.StringIO())
        self.made = self.tried = 0
        self.now = 0.0

    def say(self, *texts: str) -> None:
        for path, text in zip(self.files, texts, strict=True):
            path.write_text(text)

    def read(self) -> str:
        self.tried += 1
        one, two = (path.read_text() for path in self.files)
        if one != two:
            raise ValueError("they do not belong together")
        self.made += 1
        return one

    def reloaded(self) -> Reloaded[str]:
        changes = self.telemetry.counter("changes", "Changes", ("result",))
        return Reloaded(self.files, self.read, changes, self.telemetry, monotonic=lambda: self.now)

    def count(self, result: str) -> float:
        return self.telemetry.registry.get_sample_value("gatefold_changes_total", {"result": result}) or 0.0


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_it_is_made_once_until_the_files_change(pair: Pair) -> None:
    pair.say("first", "first")
    found = pair.reloaded()
    assert [found.value(), found.value()] == ["first", "first"]
    assert pair.made == 1
    pair.say("the second", "the second")
    assert [found.value(), found.value()] == ["the second", "the second"]
    assert pair.made == 2
    assert pair.count("taken") == 1


def test_files_that_cannot_be_used_leave_what_was_made_before(pair: Pair) -> None:
    pair.say("first", "first")
    found = pair.reloaded()
    pair.say("the second", "first")
    assert found.value() == "first"
    pair.files[1].unlink()
    assert found.value() == "first"
    assert (pair.count("unusable"), pair.count("taken")) == (2, 0)
    pair.say("the second", "the second")
    assert found.value() == "the second"


def test_a_change_that_cannot_be_used_is_told_of_once_however_many_look(pair: Pair) -> None:
    pair.say("first", "first")
    found = pair.reloaded()
    pair.say("the second", "first")
    assert [found.value() for _ in range(5)] == ["first"] * 5
    pair.files[1].unlink()
    assert [found.value() for _ in range(5)] == ["first"] * 5
    assert pair.count("unusable") == 2


def test_files_that_cannot_be_used_are_tried_again_when_they_change_and_else_once_a_second(pair: Pair) -> None:
    pair.say("first", "first")
    found = pair.reloaded()
    pair.say("the second", "first")
    assert [found.value() for _ in range(5)] == ["first"] * 5
    assert pair.tried == 2
    pair.now += 0.9
    found.value()
    assert pair.tried == 2
    pair.now += 0.1
    assert [found.value() for _ in range(5)] == ["first"] * 5
    assert pair.tried == 3
    # What hindered need not have been the files.
    read, found._make = found._make, lambda: "at last"
    assert found.value() == "first"
    pair.now += 1
    assert found.value() == "at last"
    found._make = read
    pair.say("the third one", "first")
    assert found.value() == "at last"
    pair.say("the third one", "the third one")
    assert found.value() == "the third one"
    assert pair.tried == 5


def test_what_changes_while_it_is_made_is_not_believed(pair: Pair) -> None:
    pair.say("first", "first")
    found = pair.reloaded()
    pair.say("the second", "the second")
    make = found._make

    def interrupted() -> str:
        made = make()
        pair.say("the third one", "the third one")
        return made

    found._make = interrupted
    assert found.value() == "first"
    found._make = make
    assert found.value() == "the third one"


def test_without_files_that_can_be_used_there_is_none(pair: Pair) -> None:
    with pytest.raises(OSError):
        pair.reloaded()
    pair.say("one", "another")
    with pytest.raises(ValueError, match="belong"):
        pair.reloaded()
