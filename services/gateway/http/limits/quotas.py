"""Owns which limits a request is held against: quotas by class and whom, by RPC and by rule, and accounts' own."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from libs.caller import Caller, CallerKind
from services.gateway.domain import quotas as names
from services.gateway.domain.bundle import Mode, Override, Quota
from services.gateway.http.address import network_of
from services.gateway.http.caches import Monotonic
from services.gateway.http.limits.held import Held
from services.gateway.http.limits.limit import Away, Limit

_PEOPLE = frozenset({CallerKind.STAFF, CallerKind.SUBSCRIBER, CallerKind.PLATFORM_OPERATOR, CallerKind.SCIM})
_MOST_MADE = 10_000


@dataclass(frozen=True, slots=True)
class _Own:
    """A quota of one account's own, until a time of the monotonic clock."""

    quota: Quota
    until: float


class Quotas:
    """All quotas of one version; never changed, only replaced whole."""

    def __init__(
        self,
        configured: Mapping[str, tuple[int, int]],
        *,
        away: Mapping[str, Away] | None = None,
        quotas: Sequence[Quota] = (),
        overrides: Sequence[tuple[Override, float]] = (),
        monotonic: Monotonic = lambda: 0.0,
    ) -> None:
        """Takes what replaces the defaults by name, `configured` first, then `quotas`; raises ValueError.

        `overrides` come with the time on the monotonic clock at which they end.
        """
        self._configured = configured
        self._away = away or {}
        self._monotonic = monotonic
        self._quotas = {name: Quota(name, *given) for name, given in {**names.DEFAULTS, **configured}.items()}
        self._quotas.update((quota.name, quota) for quota in quotas)
        self._own: dict[UUID, dict[str, _Own]] = {}
        for override, until in overrides:
            self._own.setdefault(override.account, {})[override.quota.name] = _Own(override.quota, until)
        every = [*self._quotas.values(), *(override.quota for override, _ in overrides)]
        for quota in every:
            names.check(quota.name, quota.amount, quota.seconds)
        if unknown := self._away.keys() - set(names.RATE_CLASSES):
            raise ValueError(f"there is no rate class {', '.join(sorted(unknown))}")
        # Most requests have neither a route's quota nor a rule's: nothing is looked up for them.
        self._special = frozenset(quota.name.rpartition(".")[0] for quota in every if ":" in quota.name)
        self._routes = {name.removeprefix("route:"): name for name in self._special if name.startswith("route:")}
        self._ending = frozenset(override.account for override, until in overrides if until != float("inf"))
        self._made: OrderedDict[tuple[object, ...], Held] = OrderedDict()

    def replaced(self, quotas: Sequence[Quota], overrides: Sequence[tuple[Override, float]]) -> "Quotas":
        """Returns these, with others in place of what was replaced before; raises ValueError."""
        return Quotas(self._configured, away=self._away, quotas=quotas, overrides=overrides, monotonic=self._monotonic)

    def of(self, rate: str, caller: Caller, address: str, rpc: str = "", rates: tuple[str, ...] = ()) -> Held:
        """Returns what a caller's request of a rate class is held against.

        `rates` are classes, or names of `rule:` quotas, that rules of the firewall add.
        """
        route = self._routes.get(rpc, "")
        network = network_of(address)
        # One object for all requests of a caller, so that its hash is worked out once.
        found = (rate, route, rates, caller.lasting_claims, network)
        held = self._made.get(found)
        if held is None:
            limits = self._limits(rate, caller, network, route, rates)
            held = Held(limits, self._limits(names.IN_FLIGHT, caller, network, "", ()))
            if caller.account not in self._ending:
                self._keep(found, held)
        return held

    def of_address(self, rate: str, address: str) -> Held:
        """Returns what a client is held against that is known by its address alone."""
        found = (rate, network_of(address))
        held = self._made.get(found)
        if held is None:
            limit = self._limit(rate, "address", found[1], rate, None)
            held = Held(() if limit is None else (limit,), ())
            self._keep(found, held)
        return held

    def _keep(self, found: tuple[object, ...], held: Held) -> None:
        self._made[found] = held
        if len(self._made) > _MOST_MADE:
            self._made.popitem(last=False)

    def _limits(self, rate: str, caller: Caller, network: str, route: str, rates: tuple[str, ...]) -> tuple[Limit, ...]:
        identities = _identities(caller, network)
        # A route's and a rule's quota may count by address whoever the caller is.
        everything = identities | {"address": network}
        made = [self._limit(rate, whom, identity, rate, caller.account) for whom, identity in identities.items()]
        if route:
            made += [self._limit(route, whom, who, rate, caller.account) for whom, who in everything.items()]
        for name in rates:
            if name in names.RATE_CLASSES:
                made += [self._limit(name, whom, who, name, caller.account) for whom, who in identities.items()]
            elif f"rule:{name}" in self._special:
                rule = f"rule:{name}"
                made += [self._limit(rule, whom, who, rate, caller.account) for whom, who in everything.items()]
        return tuple({limit.key: limit for limit in made if limit is not None}.values())

    def _limit(self, group: str, whom: str, identity: str, rate: str, account: UUID | None) -> Limit | None:
        name = f"{group}.{whom}"
        quota = self._quotas.get(name)
        own = self._own[account].get(name) if account in self._own else None
        if own is not None and self._monotonic() < own.until:
            quota = own.quota
            if whom == "address" and account is not None:
                identity = f"{identity}:{account.hex}"  # others count there by the common quota
        if quota is None or quota.mode is Mode.OFF:
            return None
        return Limit(
            f"{_short(group)}-{whom}",
            f"gatefold:gcra:{group}:{whom}:{identity}",
            quota.amount,
            quota.seconds,
            strict=rate == "strict",
            shadow=quota.mode is Mode.SHADOW,
            away=self._away.get(rate, Away.LOCAL),
        )


def _identities(caller: Caller, network: str) -> dict[str, str]:
    account = caller.account
    if caller.kind is CallerKind.SECRET_KEY:
        identities = {"server": caller.actor}
    elif caller.kind is CallerKind.PUBLISHABLE_KEY:
        identities = {"browser": f"{caller.actor}:{network}"}
    elif caller.kind in _PEOPLE:
        # One reader has one identity in each account, and staff has one in several.
        identities = {"person": f"{caller.actor}:{account.hex if account else ''}"}
    else:
        identities = {"address": network}
    if account is not None:
        identities["account"] = account.hex
    return identities


def _short(group: str) -> str:
    """`route:/gatefold.auth.v1.SessionService/CreateSession` is told of as `SessionService.CreateSession`."""
    kind, _, rest = group.partition(":")
    if kind == "route":
        service, _, method = rest.rpartition("/")
        return f"{service.rpartition('.')[2]}.{method}"
    return rest or kind
