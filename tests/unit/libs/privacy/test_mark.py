"""The marks: what a column's comment says."""

import pytest

from libs.privacy.mark import Mark, MarkError, parse


def test_a_sealed_column_says_under_which_key_and_field() -> None:
    assert parse("pii: contact; basis: contract; retention: until_erasure; sealed: profile; field: 3; json") == Mark(
        category="contact", basis="contract", retention="until_erasure", sealed="profile", field=3, json=True
    )


def test_an_index_and_a_plain_column_are_told_apart() -> None:
    assert parse("pii: contact; basis: contract; retention: until_erasure; index") == Mark(
        "contact", "contract", "until_erasure", index=True
    )
    plain = parse("pii: none")
    assert plain is not None
    assert not plain.personal


@pytest.mark.parametrize("comment", [None, "", "the reader's address", "PII: none"])
def test_a_column_without_a_mark_has_none(comment: str | None) -> None:
    assert parse(comment) is None


@pytest.mark.parametrize(
    "comment",
    [
        "pii:",
        "pii: contact",
        "pii: contact; basis: contract",
        "pii: contact; retention: until_erasure",
        "pii: contact; basis: contract; retention: until_erasure; sealed: profile",
        "pii: contact; basis: contract; retention: until_erasure; field: 3",
        "pii: contact; basis: contract; retention: until_erasure; sealed: profile; field: 0",
        "pii: contact; basis: contract; retention: until_erasure; sealed: profile; field: x",
        "pii: contact; basis: contract; retention: until_erasure; indx",
        "pii: contact; basis: contract; retention: until_erasure; purpose: billing",
    ],
)
def test_a_mark_that_is_not_understood_is_refused(comment: str) -> None:
    with pytest.raises(MarkError):
        parse(comment)
