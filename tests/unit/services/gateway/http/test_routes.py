"""Paths and where they lead."""

from dataclasses import dataclass
from typing import Any, cast

import pytest

from libs.errors import GatefoldError, Kind
from services.gateway.http.routes import Routes


@dataclass
class Place:
    verb: str
    template: str

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(part[1:-1] for part in self.template.split("/") if part.startswith("{"))


PLACES = [
    Place("GET", "/v1/subs"),
    Place("POST", "/v1/subs"),
    Place("GET", "/v1/subs/{id}"),
    Place("GET", "/v1/subs/mine"),
    Place("POST", "/v1/subs/{id}/cancel"),
    Place("GET", "/v1/subs/{sub_id}/lines/{line_id}"),
    Place("GET", "/.well-known/jwks.json"),
    Place("GET", "/v1/a/fixed/{x}/end"),
    Place("GET", "/v1/a/{y}/{z}/other"),
]
ROUTES = Routes(cast("list[Any]", PLACES))


@pytest.mark.parametrize(
    ("verb", "path", "template", "values"),
    [
        ("GET", "/v1/subs", "/v1/subs", ()),
        ("HEAD", "/v1/subs", "/v1/subs", ()),
        ("POST", "/v1/subs", "/v1/subs", ()),
        ("GET", "/v1/subs/sub_1", "/v1/subs/{id}", ("sub_1",)),
        ("GET", "/v1/subs/mine", "/v1/subs/mine", ()),
        ("POST", "/v1/subs/mine/cancel", "/v1/subs/{id}/cancel", ("mine",)),
        ("POST", "/v1/subs/a%2Fb%20c/cancel", "/v1/subs/{id}/cancel", ("a/b c",)),
        ("GET", "/v1/subs/s/lines/l", "/v1/subs/{sub_id}/lines/{line_id}", ("s", "l")),
        ("GET", "/.well-known/jwks.json", "/.well-known/jwks.json", ()),
        ("GET", "/v1/a/fixed/1/end", "/v1/a/fixed/{x}/end", ("1",)),
        ("GET", "/v1/a/fixed/1/other", "/v1/a/{y}/{z}/other", ("fixed", "1")),
    ],
)
def test_a_path_leads_to_its_endpoint(verb: str, path: str, template: str, values: tuple[str, ...]) -> None:
    match = ROUTES.find(path)
    assert match is not None
    assert match.endpoint(verb).template == template
    assert match.values == values


@pytest.mark.parametrize(
    "path",
    [
        "/", "", "/v1", "/v1/", "/v1/subs/", "/v1/subs//cancel", "/v1/subs/x/", "/v1/subs/x/y", "/V1/subs",
        "/v1/subs/%ff", "//v1/subs", "/v1/subs/x/lines", "/v1/subs/x/cancel/more", "v1/subs", "/v1/../v1/subs",
        "/v1/subs/" + "x" * 3000,
    ],
)  # fmt: skip
def test_any_other_path_leads_nowhere(path: str) -> None:
    assert ROUTES.find(path) is None


def test_another_method_is_told_which_are_allowed() -> None:
    subscriptions, cancelling = ROUTES.find("/v1/subs"), ROUTES.find("/v1/subs/x/cancel")
    assert subscriptions is not None
    assert cancelling is not None
    with pytest.raises(GatefoldError) as caught:
        subscriptions.endpoint("DELETE")
    assert caught.value.kind is Kind.METHOD_NOT_ALLOWED
    assert caught.value.metadata["allow"] == "GET, HEAD, OPTIONS, POST"
    assert cancelling.allow == "OPTIONS, POST"
