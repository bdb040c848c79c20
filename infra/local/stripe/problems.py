"""Owns errors in Stripe's shape: what a failing call answers, and what of it is kept."""

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

_DOCS = "https://stripe.com/docs/error-codes/"


class StripeError(Exception):
    """An answer that is not a success.

    `keeps_effect` says that what the call did before it failed stays (a declined card is recorded on its intent).
    `executed` says that the endpoint had begun its work, so that the answer is kept for the idempotency key.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        extra: Mapping[str, Any] | None = None,
        keeps_effect: bool = False,
        executed: bool = True,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.keeps_effect = keeps_effect
        self.executed = executed
        self._error: Json = {"message": message, "type": kind}
        if code is not None:
            self._error |= {"code": code, "doc_url": _DOCS + code.replace("_", "-")}
        if param is not None:
            self._error["param"] = param
        self._error |= extra or {}

    def body(self, request_id: str) -> Json:
        """Returns the error envelope."""
        log = f"https://dashboard.stripe.com/test/logs/{request_id}"
        return {"error": dict(sorted((self._error | {"request_log_url": log}).items()))}


def refused(message: str, *, param: str | None = None, code: str | None = None) -> StripeError:
    """A call that cannot be carried out as it stands (400)."""
    return StripeError(400, "invalid_request_error", message, code=code, param=param)


def bad_param(message: str, param: str, code: str) -> StripeError:
    """A parameter that is missing, unknown or malformed (400); the endpoint has not begun."""
    return StripeError(400, "invalid_request_error", message, code=code, param=param, executed=False)


def missing(param: str) -> StripeError:
    """A parameter that must be there and is not (400)."""
    return bad_param(f"Missing required param: {param}.", param, "parameter_missing")


def no_such(noun: str, object_id: str, param: str, *, status: int = 404) -> StripeError:
    """An object that is not there: 404 in the path, 400 in a parameter."""
    message = f"No such {noun}: '{object_id}'"
    return StripeError(status, "invalid_request_error", message, code="resource_missing", param=param)


def unauthenticated(message: str) -> StripeError:
    """A call without a usable key (401)."""
    return StripeError(401, "invalid_request_error", message, executed=False)


def unknown_url(method: str, path: str) -> StripeError:
    """A route that is not served (404)."""
    message = (
        f"Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs for the calls there are."
    )
    return StripeError(404, "invalid_request_error", message, executed=False)


def rate_limited() -> StripeError:
    """Too many calls (429)."""
    message = (
        "Request rate limit exceeded. You can learn more about rate limits here https://stripe.com/docs/rate-limits."
    )
    return StripeError(429, "invalid_request_error", message, code="rate_limit", executed=False)


def broken(status: int) -> StripeError:
    """A fault on Stripe's side (5xx)."""
    return StripeError(status, "api_error", "An unknown error occurred", keeps_effect=True)
