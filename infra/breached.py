"""Builds the list of breached passwords that ships: frequency lists, and the long weak ones that follow from them.

The lists are those of the library zxcvbn (MIT). Few of their entries reach the least length that is asked for, so what
people make of short ones is added: doubled, joined, with numbers behind, keys in a row.
"""

import hashlib
import sys
from collections.abc import Iterator
from itertools import chain, product
from pathlib import Path

from zxcvbn.frequency_lists import FREQUENCY_LISTS

ENTRY_BYTES = 8
SHORTEST, LONGEST = 8, 40
JOINED = 400
NUMBERED = 2_000
_ROWS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop", "azertyuiop", "abcdefghijklmnopqrstuvwxyz")
_COLUMNS = ("1qaz", "2wsx", "3edc", "4rfv", "5tgb", "6yhn", "7ujm", "8ik,", "9ol.", "0p;/")
_TAILS = ("1", "12", "123", "1234", "12345", "123456", "1234567", "12345678", "123456789", "1234567890", "!", "1!")


def candidates() -> Iterator[str]:
    """Yields weak passwords, some more than once."""
    passwords = list(FREQUENCY_LISTS["passwords"])
    words = list(FREQUENCY_LISTS["english_wikipedia"])
    yield from passwords
    for word in passwords[:NUMBERED]:
        yield from (word * times for times in range(2, 9))
        yield from (word + tail for tail in _TAILS)
        yield from (word + str(year) for year in range(1950, 2031))
        yield word + word[::-1]
    for first, second in product(passwords[:JOINED], repeat=2):
        yield first + second
    for word in words[:NUMBERED]:
        yield from (word * times for times in range(2, 9))
    yield from walks()


def walks() -> Iterator[str]:
    """Yields keys in a row, forwards, backwards, from anywhere on, and one key again and again."""
    lines = [*_ROWS, "".join(_ROWS[1:4]), "".join(_ROWS[:4]), "".join(_COLUMNS), "".join(_COLUMNS[::-1])]
    for line in chain(lines, [line[::-1] for line in lines]):
        endless = line * 4
        for start in range(len(line)):
            yield from (endless[start : start + length] for length in range(SHORTEST, LONGEST))
    for key in map(chr, range(33, 127)):
        yield from (key * length for length in range(SHORTEST, LONGEST))


def spellings(candidate: str) -> Iterator[str]:
    """Yields a candidate as it is commonly written."""
    yield candidate
    yield candidate.capitalize()
    yield candidate.upper()


def write(path: Path) -> int:
    """Writes the sorted entries; returns how many."""
    entries = {
        hashlib.sha1(spelling.encode(), usedforsecurity=False).digest()[:ENTRY_BYTES]
        for candidate in candidates()
        if SHORTEST <= len(candidate) <= LONGEST
        for spelling in spellings(candidate)
    }
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(sorted(entries)))
    return len(entries)


if __name__ == "__main__":
    sys.stdout.write(f"{write(Path(sys.argv[1]))} breached passwords\n")
