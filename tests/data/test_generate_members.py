"""The committed export is the one that its generator makes."""

import json

from tests.data.generate_members import FOLDER, generate


def test_the_generator_makes_the_committed_files() -> None:
    data, expected = generate()
    assert (FOLDER / "ghost_members.csv").read_bytes() == data
    committed = json.loads((FOLDER / "ghost_members.expected.json").read_text())
    assert committed["problems"] == [list(problem) for problem in expected.problems]
    assert committed["created"] + committed["duplicates"] + committed["refused"] == committed["total"] == expected.total


def test_the_export_has_the_dirt_of_real_ones() -> None:
    text = (FOLDER / "ghost_members.csv").read_bytes()
    assert text.startswith(b"\xef\xbb\xbf")
    for dirt in ("🧩", "محمد", "愛子", ";\r\nback in spring", "\r\n\r\n", "\u200b", "'=SUM", '""weekend""'):
        assert dirt.encode() in text
