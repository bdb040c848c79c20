"""Log files of bounded size, read from the end."""

import json
from pathlib import Path

from infra.local.logs import LogFile, readable, tail


def test_file_that_grew_too_large_moves_aside_and_the_writer_goes_on(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "auth.log", most_bytes=100)
    with log.path.open("a") as writer:
        writer.write("a" * 101)
        writer.flush()
        log.bound()
        writer.write("after")
    assert log.path.read_text() == "after"
    assert (tmp_path / "auth.log.1").read_text() == "a" * 101
    assert log.path.stat().st_mode & 0o777 == 0o600


def test_json_lines_are_made_readable() -> None:
    record = {"time": "12:00", "level": "error", "service": "auth", "logger": "process", "message": "no", "port": 1}
    assert readable(json.dumps(record)) == "12:00 error process no port=1"
    assert readable("plain text\n") == "plain text"
    assert readable('{"other": 1}') == '{"other": 1}'


def test_tail_counts_the_lines_of_tracebacks(tmp_path: Path) -> None:
    log = tmp_path / "auth.log"
    log.write_text("first\n" + json.dumps({"message": "failed", "error": "one\ntwo\nthree"}) + "\n")
    assert tail(log, 2) == "      two\n      three"
    assert tail(tmp_path / "none.log", 2) == "    (nothing logged)"
