"""Prints the numbers of an acceptance list that no test shows: `python infra/cases.py auth FOLDER`."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_NUMBER = re.compile(r"(?:^|(?<=[.\s]))(\d{1,2})\.\s", re.MULTILINE)
_MARK = re.compile(r'\.case\(\s*"([a-z]+)-(\d+)"')


def missing(name: str, folder: Path) -> list[int]:
    """Returns the numbers of `folder/name.md` that no test carries as `@pytest.mark.case("name-N")`."""
    numbers = {int(found) for found in _NUMBER.findall((folder / f"{name}.md").read_text())}
    shown = {
        int(number)
        for path in (ROOT / "tests").rglob("*.py")
        for marked, number in _MARK.findall(path.read_text())
        if marked == name
    }
    return sorted(numbers - shown)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: make cases LIST=auth FROM=folder-of-the-lists")
    print(*missing(sys.argv[1], Path(sys.argv[2])))
