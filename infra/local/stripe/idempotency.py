"""Owns idempotency keys as Stripe treats them: replay, refusal of other parameters, 24 hours."""

import json
from dataclasses import dataclass

from infra.local.stripe.problems import Json, StripeError, bad_param
from infra.local.stripe.store import Scope, Store

_KEPT_SECONDS = 24 * 3600
_LONGEST = 255


@dataclass(frozen=True)
class Answer:
    """What a call was answered."""

    status: int
    body: Json
    request_id: str


class InFlight:
    """The keys whose first call is not answered yet."""

    def __init__(self) -> None:
        self._keys: set[tuple[Scope, str]] = set()

    def enter(self, scope: Scope, key: str) -> None:
        """Takes a key; raises 409 while another call holds it, 400 for one that is too long."""
        if len(key) > _LONGEST:
            raise bad_param(
                "Idempotency keys may be at most 255 characters long.", "Idempotency-Key", "parameter_invalid_empty"
            )
        if (scope, key) in self._keys:
            message = (
                "There is currently another in-progress request using this Idempotent Key (that probably means you "
                f"submitted twice, and the other request is still going through): {key}. Please try again later."
            )
            raise StripeError(409, "idempotency_error", message, code="idempotency_key_in_use", executed=False)
        self._keys.add((scope, key))

    def leave(self, scope: Scope, key: str) -> None:
        """Gives a key back."""
        self._keys.discard((scope, key))


def recall(store: Store, scope: Scope, key: str, path: str, fingerprint: str, now: int) -> Answer | None:
    """Returns the answer that a key was given before; None when it is new or older than a day.

    Raises 400 `idempotency_error` when the key came with another endpoint or other parameters.
    """
    rows = store.run(
        "SELECT path, fingerprint, request_id, created, status, body FROM answer"
        " WHERE account = ? AND live = ? AND key = ?",
        (scope.account, scope.live, key),
    )
    if not rows or rows[0]["created"] + _KEPT_SECONDS <= now:
        return None
    row = rows[0]
    hint = f"Try using a key other than '{key}' if you meant to execute a different request."
    if row["path"] != path:
        message = (
            "Keys for idempotent requests can only be used for the same endpoint they were first used for "
            f"('{path}' vs '{row['path']}'). {hint}"
        )
        raise StripeError(400, "idempotency_error", message, executed=False)
    if row["fingerprint"] != fingerprint:
        message = (
            f"Keys for idempotent requests can only be used with the same parameters they were first used with. {hint}"
        )
        raise StripeError(400, "idempotency_error", message, executed=False)
    return Answer(row["status"], json.loads(row["body"]), row["request_id"])


def keep(store: Store, scope: Scope, key: str, path: str, fingerprint: str, now: int, answer: Answer) -> None:
    """Keeps an answer, in the transaction of its effect."""
    store.run(
        "INSERT OR REPLACE INTO answer (account, live, key, path, fingerprint, request_id, created, status, body)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            scope.account, scope.live, key, path, fingerprint, answer.request_id, now, answer.status,
            json.dumps(answer.body),
        ),
    )  # fmt: skip
