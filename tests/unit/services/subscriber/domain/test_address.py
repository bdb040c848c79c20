"""When two addresses are the same: exactly when their blind indexes are."""

from hypothesis import given
from hypothesis import strategies as st

from libs.vault import BlindIndexer
from services.subscriber.domain.address import cleaned, folded

INDEXER = BlindIndexer(b"k" * 32)
TEXTS = st.text(max_size=12) | st.sampled_from(
    ["Mei@Example.com", "mei@example.com", "ſ", "s", "ß", "SS", "\u0345", "ι"]
)


@given(TEXTS, TEXTS)
def test_addresses_fold_together_when_their_indexes_are_equal(first: str, second: str) -> None:
    same = INDEXER.index("email", first) == INDEXER.index("email", second)
    assert (folded(first) == folded(second)) == same


@given(st.text(max_size=12))
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    assert cleaned(cleaned(text)) == cleaned(text)
