"""Form encoding with nested parameters."""

import pytest

from infra.local.stripe.forms import Params, parse
from infra.local.stripe.problems import StripeError


def test_brackets_become_nested_values() -> None:
    assert parse("a=1&b[c][d]=2&b[c][e]=%26&f[]=x&f[]=y&g[0][h]=1&g[1][h]=2") == {
        "a": "1",
        "b": {"c": {"d": "2", "e": "&"}},
        "f": ["x", "y"],
        "g": [{"h": "1"}, {"h": "2"}],
    }


@pytest.mark.parametrize("text", ["[a]=1", "a[b=1", "a=1&a[b]=2", "a[1][2][3][4][5][6][7][8][9]=1"])
def test_malformed_names_are_refused(text) -> None:
    with pytest.raises(StripeError):
        parse(text)


def test_metadata_is_merged_and_unset_by_empty_values() -> None:
    assert Params(parse("metadata[a]=&metadata[b]=2")).metadata({"a": "1", "c": "3"}) == {"b": "2", "c": "3"}
    assert Params(parse("metadata=")).metadata({"a": "1"}) == {}
    assert Params({}).metadata({"a": "1"}) == {"a": "1"}


@pytest.mark.parametrize("value", ["1.5", "-", "", "1e3", "9" * 19])
def test_integers_are_whole_numbers(value) -> None:
    params = Params({"amount": value})
    if value == "":
        assert params.integer("amount") is None
        return
    with pytest.raises(StripeError):
        params.integer("amount")
