"""Owns gateways over one register of rules, as objects: what each enforces is written down, nothing is served."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from gatefold.gateway.v1 import bundle_pb2, firewall_pb2

from libs import caller, errors
from libs.caller import Caller, CallerKind
from libs.clock import FixedClock
from libs.ids import IdMaker
from libs.kill_points import KillPoints
from libs.postgres import Database
from libs.redis_client import Store
from libs.telemetry import Telemetry
from services.gateway.clients import BundleFeed
from services.gateway.clients.bundle_file import BundleFile
from services.gateway.domain.bundle import Action, Bundle, EntryList, ListKind, Quota, Rule
from services.gateway.domain.register import HeldList, HeldRule, Identity
from services.gateway.usecases.changes import Changes
from services.gateway.usecases.following import Following, Swap
from services.gateway.usecases.lists import EntryLists
from services.gateway.usecases.quotas import RateLimits
from services.gateway.usecases.rules import Rules
from services.gateway.usecases.versions import Announcements, Versions
from services.gateway.worker.following import FollowingLoop

OPERATOR = Caller(CallerKind.PLATFORM_OPERATOR, "per_operator", acr="aal2")
POISON = "poison"
"""No gateway enforces a rule with this expression."""


def refuse_poison(bundle: Bundle) -> None:
    """Refuses what no gateway can enforce."""
    if any(rule.expression == POISON for rule in bundle.rules):
        raise errors.invalid("expression_invalid", "This is no expression.", field="expression")


class Moments:
    """A clock of seconds that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Gateway:
    """One gateway."""

    following: Following
    loop: FollowingLoop
    telemetry: Telemetry
    applied: list[Bundle] = field(default_factory=list)
    fetches: list[Identity] = field(default_factory=list)

    @property
    def version(self) -> int:
        """What is enforced; 0 for nothing."""
        return self.applied[-1].version if self.applied else 0

    def metric(self, name: str, **labels: str) -> float:
        """Returns a metric's value."""
        return self.telemetry.registry.get_sample_value(name, labels) or 0.0


class Register:
    """The rules service of one process."""

    def __init__(
        self,
        app: Database,
        jobs: Database,
        store: Store,
        clock: FixedClock,
        ids: IdMaker,
        *,
        check: Callable[[Bundle], object] = refuse_poison,
        kill_points: KillPoints | None = None,
    ) -> None:
        self.app = app
        self._store = store
        self._clock = clock
        self._ids = ids
        self.woken = 0
        self.changes = Changes(app, clock, ids, check, self._wake)
        self.rules = Rules(app, self.changes, clock, Telemetry("gateway"))
        self.lists = EntryLists(app, self.changes, clock)
        self.limits = RateLimits(app, self.changes, clock, {})
        self.versions = Versions(app, self.changes)
        self.announcements = Announcements(jobs, BundleFeed(store, store), clock, kill_points or KillPoints("gateway"))

    def _wake(self) -> None:
        self.woken += 1

    def gateway(
        self,
        *,
        database: bool = True,
        store: Store | None = None,
        file: Path | None = None,
        prepare: Callable[[Bundle], object] = refuse_poison,
        monotonic: Callable[[], float] | None = None,
    ) -> Gateway:
        """Returns a gateway; without `database` it hears of the stream alone."""
        telemetry = Telemetry("gateway")
        applied: list[Bundle] = []
        fetches: list[Identity] = []

        def prepared(bundle: Bundle) -> Swap:
            prepare(bundle)
            return lambda: applied.append(bundle)

        async def fetch(held: Identity, digests: Collection[bytes]) -> bundle_pb2.Snapshot | None:
            fetches.append(held)
            if not database:
                raise errors.unavailable("database_unavailable", "The database is away for a moment.")
            return await self.versions.newest(held, digests)

        kept = BundleFile(file) if file else None
        following = Following(fetch, prepared, kept.save if kept else None, clock=self._clock, telemetry=telemetry)
        feed = BundleFeed(store or self._store, store or self._store)
        loop = FollowingLoop(following, feed, kept, monotonic=monotonic or Moments(), telemetry=telemetry)
        return Gateway(following, loop, telemetry, applied, fetches)

    async def add_rule(
        self, name: str, expression: str = "true", *, key: str | None = None, expected: int = 0
    ) -> HeldRule:
        """Adds a rule, as an operator does."""
        rule = Rule(self._ids.new(), name, expression, Action.BLOCK)
        request = firewall_pb2.CreateRuleRequest(name=name, expression=expression)
        with acting(key):
            return await self.rules.create(rule, "", request, expected)

    async def add_list(self, name: str, *texts: str, lasts: timedelta | None = None) -> HeldList:
        """Adds a list of networks."""
        with acting():
            wanted = EntryList(self._ids.new(), name, ListKind.NETWORKS)
            held = await self.lists.create(wanted, "", firewall_pb2.CreateEntryListRequest(name=name), 0)
            return await self.add_entries(held, *texts, lasts=lasts) if texts else held

    async def add_entries(self, held: HeldList, *texts: str, lasts: timedelta | None = None) -> HeldList:
        """Adds entries to a list."""
        end = self._clock.wall() + lasts if lasts else None
        with acting():
            return await self.lists.add(
                held.list.id, [(text, end) for text in texts], firewall_pb2.AddEntriesRequest(), 0
            )

    async def set_quota(self, amount: int) -> None:
        """Sets a quota."""
        with acting():
            await self.limits.set_quota(
                Quota("read.person", amount, 60), firewall_pb2.SetQuotaRequest(amount=amount), 0
            )


def acting(key: str | None = None) -> Any:
    """Acts as an operator within the block."""
    return caller.serving(Caller(CallerKind.PLATFORM_OPERATOR, OPERATOR.actor, acr=OPERATOR.acr, idempotency_key=key))
