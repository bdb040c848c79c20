"""The committed export is the one that its generator makes."""

from tests.data.generate_members import FOLDER, as_document, generate


def test_the_generator_makes_the_committed_files() -> None:
    data, expected = generate()
    assert (FOLDER / "ghost_members.csv").read_bytes() == data
    assert (FOLDER / "ghost_members.expected.json").read_text() == as_document(expected)


def test_the_export_has_the_dirt_of_real_ones() -> None:
    text = (FOLDER / "ghost_members.csv").read_bytes()
    assert text.startswith(b"\xef\xbb\xbf")
    for dirt in ("🧩", "محمد", "愛子", ";\r\nback in spring", "\r\n\r\n", "\u200b", "'=SUM", '""weekend""'):
        assert dirt.encode() in text
