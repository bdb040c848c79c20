"""Owns how many good actors were seen at an address, network, device or user agent: whom a block there would hit."""

from collections.abc import Iterable, Mapping

import numpy as np

from services.abuse.domain.detector import Condition, Signal, SignalKind
from services.abuse.domain.finding import Entity, Scope
from services.abuse.engine.arrays import Keys
from services.abuse.engine.columns import text_key
from services.abuse.engine.groups import Group
from services.abuse.engine.packed import entity_key
from services.abuse.engine.signals.distinct import Distinct
from services.abuse.engine.table import mixed
from services.abuse.engine.view import View, where

KNOWN_AFTER_SECONDS = 86_400
_WINDOW_SECONDS = 7 * 86_400
_PRECISION = 5
_SLOTS = {Scope.ADDRESS: 1 << 17, Scope.NETWORK: 1 << 16, Scope.DEVICE: 1 << 16, Scope.USER_AGENT: 1 << 14}
_SUCCESS = Condition("status", least=200, most=299)
_SIGNED_IN = Condition("caller", values=("SUBSCRIBER", "STAFF"))


class _Path:
    """One way by which people show that they are who they are."""

    def __init__(self, event: str, who: str, where: tuple[Condition, ...], slots: int) -> None:
        self.event = event
        self._who = who
        self._where = where
        # By network: whoever has another's session or password comes from elsewhere, and makes no place good.
        self.people = Group(("account", who, "network"), (Signal("age", SignalKind.AGE),), slots)
        seen = Signal("seen", SignalKind.DISTINCT, window_seconds=_WINDOW_SECONDS, of=who, precision=_PRECISION)
        self.places = {scope: Group((scope.value,), (seen,), size) for scope, size in _SLOTS.items()}

    def observe(self, view: View) -> None:
        view = where(view, self._where)
        if not view.rows.size:
            return
        known = self.people.observe(view)["age"] >= KNOWN_AFTER_SECONDS
        if known.any():
            view = view.only(known)
            for group in self.places.values():
                group.observe(view)

    def count(self, entity: Entity, now_ms: int) -> int:
        group = self.places.get(entity.scope)
        if group is None:
            return 0
        key = mixed([np.array([entity_key(entity.hash)], np.uint64)])
        # As events of the account's own site are kept (View.key); nobody else's verdict asks for them.
        own = [mixed([key, np.array([text_key(entity.account)], np.uint64)])] if entity.account else []
        return max(_seen(group, one, now_ms) for one in (key, *own))


def _seen(group: Group, key: Keys, now_ms: int) -> int:
    slots = group.table.find(key)
    if slots[0] < 0:
        return 0
    seen = group.kernels["seen"]
    assert isinstance(seen, Distinct)
    return round(float(seen.read(slots, group.table.latest[slots], now_ms)[0]))


class Acquaintance:
    """Remembers for one to two weeks where people signed in, or asked for something signed in, whose network it
    had been for at least a day by then.
    """

    def __init__(self) -> None:
        self.paths = (
            _Path("sign_in.password", "target", (_SUCCESS,), 1 << 18),
            _Path("", "actor", (_SIGNED_IN, _SUCCESS), 1 << 19),
        )

    def observe(self, views: Mapping[str, View]) -> None:
        """Takes the events of a batch, by their names."""
        for path in self.paths:
            path.observe(views[path.event])

    def count(self, entities: Iterable[Entity], now_ms: int) -> dict[Entity, int]:
        """Returns how many good actors were seen at each."""
        return {entity: max(path.count(entity, now_ms) for path in self.paths) for entity in entities}
