"""Owns what this gateway knows of counters in the store: which are used up until when, and units leased from them."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from services.gateway.http.limits.decision import UNKNOWN, Decision, State
from services.gateway.http.limits.held import Held
from services.gateway.http.limits.limit import Limit

LEASE_SHARE = 20
"""A lease is at most this part of a quota."""

_MOST_KEYS = 50_000


class Lease:
    """Units of one counter that this gateway may spend by itself until they expire."""

    __slots__ = ("asked_at", "expires_at", "units")

    def __init__(self, units: int, asked_at: int, expires_at: int) -> None:
        self.units = units
        self.asked_at = asked_at
        self.expires_at = expires_at


class Holding:
    """What is known of one counter; times are microseconds of the monotonic clock.

    The store's arrival time lies between `least` and `most`, as far as it is known: its answer left it after the
    question was put and before the answer was here. Nobody but time makes it less, so that until `least` is past
    nothing has to be asked.
    """

    __slots__ = ("asking", "emission", "kept", "lease", "least", "most", "since", "spent")

    def __init__(self, emission: int, now: int) -> None:
        self.emission = emission
        self.least = 0
        self.most = 0
        self.lease: Lease | None = None
        self.asking = False
        """A lease is being asked for."""
        self.since = now
        self.spent = 0
        """Units let through since then."""
        self.kept = True
        """It is the one that is known of its counter: another one may be asked for a lease else."""

    def drop(self) -> None:
        """Lets go of what is leased: whoever still refers to this finds nothing to spend here."""
        self.kept = False
        self.lease = None


class Missing(NamedTuple):
    """One limit that the store is asked for."""

    place: int
    """Among the limits of the request."""
    units: int
    want: int
    """Units to lease besides."""
    holding: Holding


class Asking:
    """A request that the store has to decide on, and what is decided already."""

    __slots__ = ("_reserved", "_ttl", "limits", "missing", "now", "states")

    def __init__(
        self,
        limits: Sequence[Limit],
        states: list[State],
        missing: list[Missing],
        reserved: list[tuple[Holding, Lease, int]],
        now: int,
        ttl: int,
    ) -> None:
        self.limits = limits
        self.states = states
        self.missing = missing
        self.now = now
        self._reserved = reserved
        self._ttl = ttl

    def answered(self, answer: Sequence[int], answered_at: int) -> Decision:
        """Takes the store's answer, three figures for each limit that was asked for, and decides."""
        for position, (index, _, want, holding) in enumerate(self.missing):
            backlog, wait, leased = answer[3 * position : 3 * position + 3]
            # What is leased is still there to be asked for, here.
            self.states[index] = State(backlog - leased * holding.emission, wait)
            holding.least, holding.most = self.now + backlog, answered_at + backlog
            if want:
                holding.asking = False
            if leased and holding.kept:
                # Held for no longer than `ttl` from before it was given.
                holding.lease = Lease(leased, self.now, self.now + self._ttl)
        return self._decided(Decision(self.limits, self.states))

    def unanswered(self, decided: Decision) -> Decision:
        """Takes what was decided without the store on the limits that it was asked for."""
        limits = list(self.limits)
        for position, (index, _, want, holding) in enumerate(self.missing):
            limits[index], self.states[index] = decided.limits[position], decided.states[position]
            if want:
                holding.asking = False
        return self._decided(Decision(limits, self.states, decided.unavailable))

    def _decided(self, decision: Decision) -> Decision:
        if decision.admitted:
            for _, units, _, holding in self.missing:
                holding.spent += units
        else:
            # A request that is refused moves nothing.
            for holding, lease, units in self._reserved:
                lease.units += units
                holding.spent -= units
        return decision


class Holdings:
    """The counters that were asked for last. `lease_microseconds` of 0 means that nothing is leased."""

    def __init__(self, lease_microseconds: int) -> None:
        self._ttl = lease_microseconds
        self._held: OrderedDict[str, Holding] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def decide(self, limits: Sequence[Limit], cost: int, now: int) -> Decision | Asking:
        """Decides without the store, or says what it has to be asked; what is leased is reserved meanwhile."""
        refused_until = 0
        states: list[State | None] = []
        found: list[Holding] = []
        for limit in limits:
            holding = self._holding(limit, now)
            found.append(holding)
            increment = (cost if cost < limit.amount else limit.amount) * limit.emission
            over = increment - limit.tolerance - now
            if holding.least + over > 0 and (holding.lease is None or not holding.lease.units):
                if not limit.shadow:
                    refused_until = max(refused_until, now + holding.least + over)
                states.append(State(holding.most - now, holding.most + over))
            else:
                states.append(None)
        if refused_until:
            known = [UNKNOWN if state is None else state for state in states]
            return Decision(limits, known, refused_until=refused_until)
        return self._spend(limits, cost, now, found, states)

    def bind(self, held: Held) -> None:
        """Looks the counters of a caller up by their names, so that its leases are found without."""
        found: list[tuple[Limit, Holding]] = []
        for limit in held.limits:
            holding = self._held.get(limit.key)
            if holding is None or holding.emission != limit.emission:
                return
            found.append((limit, holding))
        held.leases = tuple(found)

    def forget(self) -> None:
        """Forgets everything; nothing of it can be spent any more by whoever still refers to it."""
        for holding in self._held.values():
            holding.drop()
        self._held.clear()

    def unspent(self, now: int) -> list[tuple[str, int, int]]:
        """Takes all leases back; returns key, emission and microseconds of backlog that may be given back.

        What was held while time went on came back by itself as much: only what is beyond may be given back, or more
        would be let through than by one counter.
        """
        backs: list[tuple[str, int, int]] = []
        for key, holding in self._held.items():
            lease, holding.lease = holding.lease, None
            if lease is not None and lease.expires_at > now:
                back = lease.units * holding.emission - (now - lease.asked_at)
                if back > 0:
                    backs.append((key, holding.emission, back))
        return backs

    def _holding(self, limit: Limit, now: int) -> Holding:
        holding = self._held.get(limit.key)
        if holding is None or holding.emission != limit.emission:
            if holding is not None:
                holding.drop()
            holding = self._held[limit.key] = Holding(limit.emission, now)
            if len(self._held) > _MOST_KEYS:
                self._held.popitem(last=False)[1].drop()
        else:
            self._held.move_to_end(limit.key)
            if holding.lease is not None and holding.lease.expires_at <= now:
                holding.lease = None
        return holding

    def _spend(
        self, limits: Sequence[Limit], cost: int, now: int, found: list[Holding], states: list[State | None]
    ) -> Decision | Asking:
        missing: list[Missing] = []
        reserved: list[tuple[Holding, Lease, int]] = []
        known: list[State] = []
        for index, (limit, holding, state) in enumerate(zip(limits, found, states, strict=True)):
            lease, units = holding.lease, min(cost, limit.amount)
            if state is not None:
                known.append(state)  # of a limit in shadow, used up
            elif lease is not None and lease.units >= units:
                lease.units -= units
                holding.spent += units
                reserved.append((holding, lease, units))
                known.append(State(max(0, holding.most - now - lease.units * limit.emission), 0))
            else:
                missing.append(Missing(index, units, 0, holding))
                known.append(UNKNOWN)
        if not missing:
            return Decision(limits, known)
        for position, (index, units, _, holding) in enumerate(missing):
            missing[position] = Missing(index, units, self._want(limits[index], holding, units, now), holding)
        return Asking(limits, known, missing, reserved, now, self._ttl)

    def _want(self, limit: Limit, holding: Holding, units: int, now: int) -> int:
        """Half of what will be asked for while a lease holds, as lately it was, so that little is left to expire."""
        if self._ttl == 0 or limit.strict or holding.asking:
            return 0
        most = min(limit.amount // LEASE_SHARE, self._ttl // limit.emission)
        elapsed = now - holding.since
        if elapsed > 2 * self._ttl:
            holding.since, holding.spent = now, 0
        elif elapsed > self._ttl:
            holding.since, holding.spent = now - elapsed // 2, holding.spent // 2
        used = holding.spent + units
        demand = used * self._ttl // max(now - holding.since, 1)
        # Never more than twice what was used: a burst is no habit yet.
        want = min(most, demand // 2, 2 * holding.spent)
        if want:
            holding.asking = True
            holding.lease = None  # what is left of it is less than one request
        return want
