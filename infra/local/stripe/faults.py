"""Owns faults that are asked for through /_sim/faults: which call or webhook goes wrong, how, and how often."""

import fnmatch
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from infra.local.stripe.problems import Json
from infra.local.stripe.store import Store

ON_CALLS = frozenset({"lost_reply", "lost_request", "error", "rate_limit", "delay"})
ON_WEBHOOKS = frozenset({"webhook_duplicate", "webhook_delay", "webhook_reorder", "webhook_drop"})


@dataclass(frozen=True)
class Fault:
    """A fault, for the next `count` calls or webhooks that it fits.

    On calls: `lost_reply` closes the connection after the effect, `lost_request` before it; `error` answers `status`
    (before the effect, or after it with `after_effect`); `rate_limit` answers 429; `delay` waits `seconds` (before the
    effect, or after it). On webhooks: `webhook_duplicate` sends each twice, `webhook_delay` later by `seconds`,
    `webhook_reorder` the next `count` in reverse order, `webhook_drop` never.
    `path` is a pattern: the call's path (`/v1/payment_intents/*`) or the event's type (`payment_intent.*`).
    """

    kind: str
    count: int = 1
    method: str = "*"
    path: str = "*"
    account: str = "*"
    status: int = 500
    seconds: float = 1.0
    after_effect: bool = False


def read(values: Json) -> Fault:
    """Returns the fault that a JSON body asks for; raises ValueError with what is wrong."""
    types = {field.name: field.type for field in fields(Fault)}
    for name, value in values.items():
        wanted: Any = types.get(name)
        if wanted is None:
            raise ValueError(f"unknown field {name}; there are {', '.join(types)}")
        if not isinstance(value, (int, float) if wanted is float else wanted):
            raise ValueError(f"{name} must be of type {wanted.__name__}")  # noqa: TRY004 — a bad request, not a bug
    if values.get("kind") not in ON_CALLS | ON_WEBHOOKS:
        raise ValueError(f"kind must be one of {', '.join(sorted(ON_CALLS | ON_WEBHOOKS))}")
    return Fault(**values)


class Faults:
    """The faults that are left."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, fault: Fault) -> None:
        """Adds a fault behind those that are there."""
        self._store.run("INSERT INTO fault (left_over, body) VALUES (?, ?)", (fault.count, json.dumps(asdict(fault))))

    def clear(self) -> None:
        """Forgets all faults."""
        self._store.run("DELETE FROM fault")

    def all(self) -> list[Json]:
        """Returns the faults that are left, with how often each will still happen."""
        rows = self._store.run("SELECT left_over, body FROM fault WHERE left_over > 0 ORDER BY seq")
        return [json.loads(row["body"]) | {"left": row["left_over"]} for row in rows]

    def take(self, kinds: frozenset[str], account: str, method: str, path: str) -> tuple[Fault, int] | None:
        """Returns the first fault that fits and how many were left before, and counts it down."""
        for row in self._store.run("SELECT seq, left_over, body FROM fault WHERE left_over > 0 ORDER BY seq"):
            fault = Fault(**json.loads(row["body"]))
            if (
                fault.kind in kinds
                and fault.account in ("*", account)
                and fault.method in ("*", method)
                and fnmatch.fnmatchcase(path, fault.path)
            ):
                self._store.run("UPDATE fault SET left_over = left_over - 1 WHERE seq = ?", (row["seq"],))
                return fault, int(row["left_over"])
        return None
