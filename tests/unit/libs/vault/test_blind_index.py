"""The blind index: equal for what people mean by equal, and tied to account and kind."""

from hypothesis import given
from hypothesis import strategies as st

from libs.vault import BlindIndexer

INDEX = BlindIndexer(b"i" * 32)


def test_case_width_and_outer_spaces_do_not_matter() -> None:
    spellings = ["Reader@Example.com", "reader@example.com ", "\tREADER@EXAMPLE.COM", "ｒｅａｄｅｒ＠example.com"]
    assert len({INDEX.index("email", spelling) for spelling in spellings}) == 1


def test_composed_and_decomposed_letters_are_equal() -> None:
    assert INDEX.index("email", "zoé@example.com") == INDEX.index("email", "zoe\u0301@example.com")


@given(st.text(max_size=60))
def test_an_upper_cased_text_has_the_index_of_its_folded_form(text: str) -> None:
    assert INDEX.index("email", text) == INDEX.index("email", text.casefold())
    assert len(INDEX.index("email", text)) == 16


def test_kinds_are_kept_apart() -> None:
    assert INDEX.index("email", "value") != INDEX.index("phone", "value")
    assert INDEX.index("email", "value") != INDEX.index("emailv", "alue")


def test_accounts_are_kept_apart() -> None:
    assert INDEX.index("email", "value") != BlindIndexer(b"j" * 32).index("email", "value")
