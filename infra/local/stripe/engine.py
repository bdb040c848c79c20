"""Owns what every call of the simulator shares: ids, time, events, rendering, expanding, listing."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from infra.local.stripe.forms import Params
from infra.local.stripe.problems import Json, bad_param, no_such
from infra.local.stripe.store import Scope, Store
from libs.clock import WallClock

API_VERSION = "2026-10-28.endive"

_PREFIXES: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        "account": ("acct_1", 16),
        "charge": ("ch_3", 23),
        "customer": ("cus_", 14),
        "event": ("evt_1", 23),
        "payment_intent": ("pi_3", 23),
        "payment_method": ("pm_1", 23),
        "request": ("req_", 14),
        "setup_intent": ("seti_1", 23),
        "webhook_endpoint": ("we_1", 23),
    }
)
_NOUNS: Mapping[str, str] = MappingProxyType({"payment_method": "PaymentMethod", "setup_intent": "setupintent"})
_EXPANDABLE: Mapping[str, str] = MappingProxyType(
    {
        "customer": "customer",
        "latest_charge": "charge",
        "payment_intent": "payment_intent",
        "payment_method": "payment_method",
        "setup_intent": "setup_intent",
    }
)
# What a browser with a publishable key and the client secret gets to see of an intent.
_PUBLIC_FIELDS = frozenset(
    {
        "id", "object", "amount", "automatic_payment_methods", "canceled_at", "cancellation_reason", "capture_method",
        "client_secret", "confirmation_method", "created", "currency", "description", "last_payment_error",
        "last_setup_error", "livemode", "next_action", "payment_method", "payment_method_types", "processing",
        "receipt_email", "setup_future_usage", "shipping", "source", "status", "usage",
    }
)  # fmt: skip
_HIDDEN = "_sim"
"""Key of an object's part that only the simulator sees."""


@dataclass(frozen=True)
class Call:
    """One call of the API."""

    scope: Scope
    publishable: bool
    params: Params
    request_id: str
    idempotency_key: str | None
    origin: str


class Engine:
    """The simulator's world: its store, its clock, its randomness, and who is told about events."""

    def __init__(
        self,
        store: Store,
        clock: WallClock,
        randomness: Callable[[int], bytes],
        on_event: Callable[[Scope, Json], int],
    ) -> None:
        self.store = store
        self._clock = clock
        self._randomness = randomness
        self._on_event = on_event

    def now(self) -> int:
        """Returns the present time in whole seconds since 1970."""
        return int(self._clock.wall().timestamp())

    def token(self, length: int) -> str:
        """Returns random letters and digits."""
        text = base64.b64encode(self._randomness(length * 2)).decode()
        letters = "".join(letter for letter in text if letter.isalnum())
        return letters[:length] if len(letters) >= length else self.token(length)

    def new_id(self, kind: str) -> str:
        """Returns a fresh identifier in Stripe's form."""
        prefix, length = _PREFIXES[kind]
        return prefix + self.token(length)

    def load(self, call: Call, kind: str, object_id: str, *, param: str | None = None) -> Json:
        """Returns an object of the caller's account; raises 404, or 400 when `param` names where the id stood."""
        body = self.store.get(call.scope, kind, object_id)
        if body is None:
            raise no_such(_NOUNS.get(kind, kind), object_id, param or "id", status=404 if param is None else 400)
        return body

    def save(self, call: Call, body: Json) -> None:
        """Writes an object."""
        self.store.put(call.scope, body)

    def emit(self, call: Call, event_type: str, body: Json, previous: Json | None = None) -> None:
        """Records an event with the object as it is now, and has it delivered."""
        data: Json = {"object": visible(body)}
        if previous is not None:
            data["previous_attributes"] = previous
        event: Json = {
            "id": self.new_id("event"),
            "object": "event",
            "api_version": API_VERSION,
            "created": self.now(),
            "data": data,
            "livemode": call.scope.live,
            "pending_webhooks": 0,
            "request": {"id": call.request_id, "idempotency_key": call.idempotency_key},
            "type": event_type,
        }
        event["pending_webhooks"] = self._on_event(call.scope, event)
        self.store.put(call.scope, event)

    def render(self, call: Call, body: Json) -> Json:
        """Returns an object as the caller gets to see it, with what `expand[]` asks for."""
        shown = visible(body)
        if call.publishable and shown["object"] in ("payment_intent", "setup_intent"):
            return {key: value for key, value in shown.items() if key in _PUBLIC_FIELDS}
        for path in call.params.texts("expand"):
            self._expand(call, shown, path.split("."), path)
        return shown

    def _expand(self, call: Call, shown: Json, steps: list[str], path: str) -> None:
        step, rest = steps[0], steps[1:]
        targets = shown["data"] if shown.get("object") == "list" and step == "data" else None
        if targets is not None:
            for item in targets:
                self._expand(call, item, rest, path)
            return
        if step not in shown or step not in _EXPANDABLE:
            raise bad_param(f"This property cannot be expanded ({path}).", "expand", "parameter_unknown")
        value = shown[step]
        if isinstance(value, str):
            found = self.store.get(call.scope, _EXPANDABLE[step], value)
            value = shown[step] = None if found is None else visible(found)
        if rest and value is not None:
            self._expand(call, value, rest, path)

    def page(self, call: Call, kind: str, url: str, keep: Callable[[Json], bool]) -> Json:
        """Returns a page of a list, newest first (`limit`, `starting_after`, `ending_before`, `created`)."""
        limit = call.params.integer("limit")
        limit = 10 if limit is None else limit
        if not 1 <= limit <= 100:
            raise bad_param("Invalid integer: limit must be between 1 and 100.", "limit", "parameter_invalid_integer")
        bodies = [body for body in self.store.all(call.scope, kind) if _within(call, body)]
        ids = [body["id"] for body in bodies]
        after, before = call.params.text("starting_after"), call.params.text("ending_before")
        for cursor, param in ((after, "starting_after"), (before, "ending_before")):
            if cursor is not None and cursor not in ids:
                raise no_such(kind, cursor, param, status=400)
        first = 0 if after is None else ids.index(after) + 1
        last = len(ids) if before is None else ids.index(before)
        found = [body for body in bodies[first:last] if keep(body)]
        chosen = found[:limit] if before is None else found[-limit:]
        shown = {
            "object": "list",
            "data": [visible(body) for body in chosen],
            "has_more": len(found) > limit,
            "url": url,
        }
        for path in call.params.texts("expand"):
            self._expand(call, shown, path.split("."), path)
        return shown


def visible(body: Json) -> Json:
    """Returns an object without the part that only the simulator sees."""
    return {key: value for key, value in body.items() if key != _HIDDEN}


def hidden(body: Json) -> Json:
    """Returns the part of an object that only the simulator sees, to read and to change."""
    part: Json = body.setdefault(_HIDDEN, {})
    return part


def fingerprint(values: Any) -> str:
    """Returns a short digest of values, whatever their order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]


def _within(call: Call, body: Json) -> bool:
    given = call.params.values.get("created")
    if given is None:
        return True
    created = int(body["created"])
    if isinstance(given, str):
        return created == Params({"created": given}).integer("created")
    bounds = Params(given if isinstance(given, dict) else {})
    gte, gt, lte, lt = (bounds.integer(name) for name in ("gte", "gt", "lte", "lt"))
    return (
        (gte is None or created >= gte)
        and (gt is None or created > gt)
        and (lte is None or created <= lte)
        and (lt is None or created < lt)
    )
