"""Tests of libs/errors."""

import inspect

import pytest

from libs import errors
from libs.errors import GatefoldError, Kind, Violation

CONSTRUCTORS = {
    Kind.MALFORMED: errors.malformed,
    Kind.INVALID: errors.invalid,
    Kind.UNAUTHENTICATED: errors.unauthenticated,
    Kind.PAYMENT_REQUIRED: errors.payment_required,
    Kind.FORBIDDEN: errors.forbidden,
    Kind.NOT_FOUND: errors.not_found,
    Kind.METHOD_NOT_ALLOWED: errors.method_not_allowed,
    Kind.CONFLICT: errors.conflict,
    Kind.PRECONDITION: errors.precondition,
    Kind.TOO_LARGE: errors.too_large,
    Kind.UNSUPPORTED_MEDIA: errors.unsupported_media,
    Kind.TOO_MANY: errors.too_many,
    Kind.CANCELLED: errors.cancelled,
    Kind.INTERNAL: errors.internal,
    Kind.UNAVAILABLE: errors.unavailable,
    Kind.TIMEOUT: errors.timeout,
}


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_a_constructor_that_makes_it(kind: Kind) -> None:
    constructor = CONSTRUCTORS[kind]
    wait = {"retry_after_seconds": 3} if "retry_after_seconds" in inspect.signature(constructor).parameters else {}

    error = constructor("some_reason", "A sentence.", **wait)  # type: ignore[arg-type]

    assert (error.kind, error.reason, error.detail) == (kind, "some_reason", "A sentence.")
    assert error.retry_after_seconds == wait.get("retry_after_seconds")


def test_http_statuses_are_those_of_the_contract() -> None:
    assert {kind.name: kind.http_status for kind in Kind} == {
        "MALFORMED": 400, "INVALID": 422, "UNAUTHENTICATED": 401, "PAYMENT_REQUIRED": 402, "FORBIDDEN": 403,
        "NOT_FOUND": 404, "METHOD_NOT_ALLOWED": 405, "CONFLICT": 409, "PRECONDITION": 409, "TOO_LARGE": 413,
        "UNSUPPORTED_MEDIA": 415, "TOO_MANY": 429, "CANCELLED": 499, "INTERNAL": 500, "UNAVAILABLE": 503,
        "TIMEOUT": 504,
    }  # fmt: skip


def test_a_field_is_short_for_one_violation() -> None:
    error = errors.invalid("too_short", "This is too short.", field="password")

    assert error.violations == (Violation("password", "too_short", "This is too short."),)


def test_a_field_comes_before_further_violations() -> None:
    other = Violation("b", "rule", "Detail.")

    error = errors.malformed("reason", "Detail.", field="a", violations=[other])

    assert [violation.field for violation in error.violations] == ["a", "b"]


def test_metadata_cannot_be_changed_after_the_fact() -> None:
    given = {"scope": "a:read"}
    error = errors.forbidden("reason", "Detail.", metadata=given)
    given["scope"] = "b:read"

    assert error.metadata["scope"] == "a:read"
    with pytest.raises(TypeError):
        error.metadata["scope"] = "c:read"  # type: ignore[index]


def test_text_of_the_exception_names_reason_and_detail() -> None:
    assert str(GatefoldError(Kind.INVALID, "reason", "Detail.")) == "reason: Detail."
