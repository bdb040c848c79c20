"""Regular expressions of others: what is taken, and that no text makes one of them slow."""

import pytest

from libs.patterns import LARGEST, Patterns


def test_a_pattern_is_found_anywhere_in_a_text() -> None:
    found = Patterns().one("(?i)b[aä]r$")

    assert [found(text) for text in ("foobar", "FOOBÄR", "barfoo", "\ud800bar")] == [True, True, False, True]


@pytest.mark.parametrize("pattern", [r"(a)\1", "a(?=b)", "(?<!a)b", "(", "a{1001}", "((a{99}){99}){99}", "(a?){300}"])
def test_what_could_take_long_or_does_not_exist_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Patterns().one(pattern)


def test_several_at_once_find_what_any_finds() -> None:
    patterns = Patterns()
    found = patterns.any_of(["(?i)^a", "(?P<x>b)$", "(?P<x>c)c"])

    assert found is not None
    assert [found(text) for text in ("Axx", "B", "xb", "xccx", "xax")] == [True, False, True, True, False]


def test_too_many_at_once_are_told_one_by_one() -> None:
    assert Patterns().any_of([str(number) + "[a-y]{100}z" for number in range(LARGEST)]) is None


@pytest.mark.parametrize("number", [3, 5_000])
def test_plain_parts_are_found_in_any_case(number: int) -> None:
    found = Patterns().any_part(["a.b", *(f"part-number-{one}-of-many" for one in range(number))])

    assert [found(text) for text in ("xA.Bx", "axb", "PART-number-2-of-MANY")] == [True, False, True]
