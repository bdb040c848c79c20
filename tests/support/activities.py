"""Hand-made activities: one call an event, with names instead of hashes."""

from dataclasses import dataclass, field
from typing import Any

from gatefold.activity.v1 import activity_pb2

from libs.activity import Pseudonyms

BEGIN = 1_793_000_400
"""Unix seconds of a Monday morning."""
_HIDDEN = Pseudonyms("test").of
_HASHED = {
    "address": "client_address_hash",
    "network": "client_network_hash",
    "user_agent": "user_agent_hash",
    "actor": "actor_hash",
    "target": "target_hash",
    "device": "device_hash",
    "session": "session_hash",
}


def hashed(kind: str, name: str) -> bytes:
    """Returns the hash by which an activity names something."""
    return _HIDDEN(kind, name)


def activity(event: str = "", at: float = 0.0, *, status: int = 200, **fields: Any) -> activity_pb2.Activity:
    """Returns an event `at` seconds after the beginning. Hashed fields take names."""
    if "address" in fields:
        fields.setdefault("network", f"network of {fields['address']}")
    hashes = {field: hashed(kind, fields.pop(kind)) for kind, field in _HASHED.items() if kind in fields}
    made = activity_pb2.Activity(
        event_name=event,
        http_request_method=fields.pop("method", "POST" if event else "GET"),
        http_response_status_code=status,
        account_id=fields.pop("account", "acct_one"),
        request_id=fields.pop("request_id", f"req_{at}"),
        **hashes,
        **fields,
    )
    moment = round((BEGIN + at) * 1000)
    made.time.seconds, made.time.nanos = moment // 1000, moment % 1000 * 1_000_000
    return made


@dataclass
class Story:
    """Events that are told one after the other."""

    events: list[activity_pb2.Activity] = field(default_factory=list)

    def sign_in(self, at: float, target: str, *, ok: bool = False, **fields: Any) -> None:
        """Somebody tries a password."""
        fields.setdefault("caller_kind", "ANONYMOUS")
        fields.setdefault("http_route", "/v1/sessions")
        status, reason = (200, "") if ok else (401, "credentials_invalid")
        self.add("sign_in.password", at, status=status, problem_reason=reason, target=target, **fields)

    def read(self, at: float, page: str, *, status: int = 200, **fields: Any) -> None:
        """Somebody asks for something that has a name."""
        fields.setdefault("caller_kind", "SUBSCRIBER" if "actor" in fields else "ANONYMOUS")
        fields.setdefault("http_route", "/v1/articles/{id}")
        self.add("", at, status=status, target=page, **fields)

    def pay(self, at: float, card: str, *, ok: bool = False, **fields: Any) -> None:
        """Somebody pays, or tries to."""
        self.add("payment.attempt", at, status=200 if ok else 402, target=card, **fields)

    def code(self, at: float, code: str, *, ok: bool = False, **fields: Any) -> None:
        """Somebody enters a coupon's code."""
        self.add(fields.pop("event", "coupon.attempt"), at, status=200 if ok else 404, target=code, **fields)

    def add(self, event: str, at: float, **fields: Any) -> None:
        """Something happens."""
        self.events.append(activity(event, at, **fields))

    def in_order(self) -> list[activity_pb2.Activity]:
        """Returns all events by their times."""
        return sorted(self.events, key=lambda one: (one.time.seconds, one.time.nanos))
