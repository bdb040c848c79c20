"""Which numbers of an acceptance list are without a test."""

from pathlib import Path

from infra import cases


def test_a_number_without_a_mark_is_missing_and_one_with_a_mark_is_not(tmp_path: Path) -> None:
    (tmp_path / "auth.md").write_text(
        "# Cases\n71. Marked. S 6.3.2\n98. Nobody shows this.\n99. Nor this one. 100 words.\n"
    )
    assert cases.missing("auth", tmp_path) == [98, 99]
