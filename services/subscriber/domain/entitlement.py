"""Owns entitlements: which rights a subscription gives, which hold at a time, and the paywall's answer."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from libs import errors


@dataclass(frozen=True)
class Entitlement:
    """One right to use a feature. `subscription_id` is None where access was given for free."""

    feature: str
    subscription_id: UUID | None
    active_from: datetime
    active_until: datetime | None

    def active(self, now: datetime) -> bool:
        """Tells whether the right holds; its end is no longer part of it."""
        return self.active_from <= now and (self.active_until is None or now < self.active_until)


@dataclass(frozen=True)
class Grant:
    """What a subscription opens from now on, as billing said: all its features, until when."""

    subscription_id: UUID
    features: tuple[str, ...]
    active_from: datetime
    access_until: datetime


@dataclass(frozen=True)
class Decision:
    """The paywall's answer."""

    allowed: bool
    reason: str
    until: datetime | None
    soft_wall: bool = False
    """Whether they look like abuse; said beside the answer, which it leaves as it is."""


ANONYMOUS = Decision(False, "anonymous", None)


def regranted(known: Iterable[Entitlement], grant: Grant, now: datetime) -> list[Entitlement]:
    """Returns the subscription's rights after a grant, one a feature.

    A feature that the subscription no longer opens ends now at the latest; its row stays, so that the paywall can
    tell an expired right from one that never was. A right begins once: renewals only move its end.
    """
    before = {right.feature: right for right in known if right.subscription_id == grant.subscription_id}
    after = []
    for feature in dict.fromkeys(grant.features):
        right = before.pop(feature, None)
        begin = grant.active_from if right is None else min(right.active_from, grant.active_from)
        after.append(Entitlement(feature, grant.subscription_id, begin, max(begin, grant.access_until)))
    for right in before.values():
        end = now if right.active_until is None else min(right.active_until, now)
        after.append(Entitlement(right.feature, right.subscription_id, right.active_from, max(right.active_from, end)))
    return after


def active_features(rights: Iterable[Entitlement], now: datetime) -> tuple[str, ...]:
    """Returns the features that may be used, sorted, each once."""
    return tuple(sorted({right.feature for right in rights if right.active(now)}))


def decide(rights: Sequence[Entitlement], now: datetime) -> Decision:
    """Decides over the rights of one reader to one feature; the longest of those that hold counts."""
    holding = [right for right in rights if right.active(now)]
    if holding:
        ends = [right.active_until for right in holding if right.active_until is not None]
        return Decision(True, "entitled", max(ends) if len(ends) == len(holding) else None)
    if any(right.active_until is not None and right.active_until <= now for right in rights):
        return Decision(False, "expired", None)
    return Decision(False, "no_entitlement", None)


def checked_feature(feature: str) -> str:
    """Returns the feature's name; raises `invalid("feature_malformed")` for anything no plan could carry."""
    if not 1 <= len(feature) <= 80 or not set(feature) <= _FEATURE_LETTERS:
        raise errors.invalid(
            "feature_malformed", "A feature is 1 to 80 of the characters a-z, 0-9, _, . and -.", field="feature"
        )
    return feature


_FEATURE_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_.-")
