"""Owns how much of what a client may ask for: quotas by rate class and by whom they count."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from libs.caller import Caller, CallerKind
from services.gateway.http.address import network_of

_WINDOW_SECONDS = 60

# Units a minute. `server`: one secret key; `person`: one member of staff, reader or operator; `browser`: one address
# that uses a publishable key, which all readers of a site share; `address`: one address without a credential;
# `account`: all of an account together.
_DEFAULTS = {
    "read": {"server": 6000, "person": 600, "browser": 600, "address": 600, "account": 60_000},
    "write": {"server": 1800, "person": 120, "browser": 120, "address": 120, "account": 18_000},
    "strict": {"server": 600, "person": 30, "browser": 30, "address": 30, "account": 6000},
    "bulk": {"server": 60, "person": 20, "browser": 6, "address": 6, "account": 120},
    "webhook": {"server": 6000, "person": 600, "browser": 600, "address": 6000, "account": 60_000},
}
_PEOPLE = frozenset({CallerKind.STAFF, CallerKind.SUBSCRIBER, CallerKind.PLATFORM_OPERATOR, CallerKind.SCIM})


@dataclass(frozen=True, slots=True)
class Limit:
    """One counter that a request is held against."""

    name: str
    """As in the RateLimit headers: `read-server`."""
    key: str
    """Of the counter in the store."""
    amount: int
    seconds: int

    @property
    def emission(self) -> int:
        """Microseconds in which one unit comes back."""
        return max(1, self.seconds * 1_000_000 // self.amount)

    @property
    def tolerance(self) -> int:
        """Microseconds of backlog up to which requests are let through: the whole quota at once."""
        return self.emission * self.amount


class Quotas:
    """All quotas."""

    def __init__(self, replaced: Mapping[str, tuple[int, int]]) -> None:
        """Takes quotas in place of defaults, by `class.whom`; raises ValueError for an unknown name."""
        self._quotas = {
            f"{rate}.{whom}": (amount, _WINDOW_SECONDS)
            for rate, amounts in _DEFAULTS.items()
            for whom, amount in amounts.items()
        }
        if unknown := replaced.keys() - self._quotas.keys():
            raise ValueError(f"there is no quota {', '.join(sorted(unknown))}")
        self._quotas.update(replaced)

    def of(self, rate: str, caller: Caller, address: str) -> list[Limit]:
        """Returns the limits that a caller's request of a rate class is held against."""
        account: UUID | None = caller.account
        if caller.kind is CallerKind.SECRET_KEY:
            limits = [self._limit(rate, "server", caller.actor)]
        elif caller.kind is CallerKind.PUBLISHABLE_KEY:
            limits = [self._limit(rate, "browser", f"{caller.actor}:{network_of(address)}")]
        elif caller.kind in _PEOPLE:
            # One reader has one identity in each account, and staff has one in several.
            limits = [self._limit(rate, "person", f"{caller.actor}:{account.hex if account else ''}")]
        else:
            limits = [self.of_address(rate, address)]
        if account is not None:
            limits.append(self._limit(rate, "account", account.hex))
        return limits

    def of_address(self, rate: str, address: str) -> Limit:
        """Returns the limit of a client that is known by its address alone."""
        return self._limit(rate, "address", network_of(address))

    def _limit(self, rate: str, whom: str, identity: str) -> Limit:
        amount, seconds = self._quotas[f"{rate}.{whom}"]
        return Limit(f"{rate}-{whom}", f"gatefold:rate:{rate}:{whom}:{identity}", amount, seconds)
