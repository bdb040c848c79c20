"""Owns holding a request against rules and verdicts: by its head first, and once the caller is known."""

from functools import lru_cache
from uuid import UUID

from libs import activity, errors, ids
from libs.caller import Caller
from libs.clock import WallClock
from libs.telemetry import Telemetry
from services.gateway.domain.bundle import Action
from services.gateway.domain.firewall import PASSED, Outcome, Phase, Ruleset
from services.gateway.http.challenge import PATH, Challenges
from services.gateway.http.exchange import Exchange
from services.gateway.http.facts import RequestFacts, Sources
from services.gateway.http.verdicts import Held

THROTTLED_COST = 4
"""How much more a request of a throttled client counts against its limits."""
_PROBES = frozenset({"/healthz", "/readyz"})


class Firewall:
    """Lets requests through, or refuses them."""

    def __init__(
        self, rules: Ruleset, sources: Sources, challenges: Challenges, *, clock: WallClock, telemetry: Telemetry
    ) -> None:
        self._rules = rules
        self._sources = sources
        self._challenges = challenges
        self._clock = clock
        self._past: dict[UUID, tuple[int, int]] = {}
        self._acted = telemetry.counter(
            "gateway_firewall", "Requests that a rule or a verdict acted on", ("by", "action", "mode")
        )

    @property
    def version(self) -> int:
        """Of the bundle whose rules hold."""
        return self._rules.version

    def replace(self, rules: Ruleset) -> None:
        """Holds all requests from now on against other rules."""
        former, self._rules = self._rules, rules
        kept = rules.counters()
        for rule, (hits, failures) in former.counters().items():
            before = self._past.get(rule, (0, 0))
            self._past[rule] = (before[0] + hits, before[1] + failures)
        self._past = {rule: counts for rule, counts in self._past.items() if rule in kept}

    def counters(self) -> dict[UUID, tuple[int, int]]:
        """Returns how often each rule matched and failed since this process began."""
        present = self._rules.counters()
        return {
            rule: (hits + self._past.get(rule, (0, 0))[0], failures + self._past.get(rule, (0, 0))[1])
            for rule, (hits, failures) in present.items()
        }

    def check_request(self, exchange: Exchange) -> None:
        """Judges a request by its head.

        Raises `forbidden("firewall_blocked")`, `forbidden("challenge_required")`, and
        `unauthenticated("credential_revoked")`.
        """
        facts = exchange.facts = RequestFacts(exchange, self._sources, self._rules.on_list)
        if exchange.path not in _PROBES:
            self._check(exchange, facts, Phase.BEFORE)

    def check_caller(self, exchange: Exchange, caller: Caller) -> None:
        """Judges a request by its caller; raises as `check_request` does."""
        facts = exchange.facts
        if facts is not None and not facts.allowed:
            facts.know(caller)
            self._check(exchange, facts, Phase.AFTER)

    def _check(self, exchange: Exchange, facts: RequestFacts, phase: Phase) -> None:
        outcome = PASSED if facts.ends else self._rules.judge(facts, phase, self._clock.wall().timestamp())
        self._note(outcome)
        exchange.rates = (*exchange.rates, *outcome.rates)
        facts.ends = facts.ends or outcome.ends
        facts.allowed = outcome.allowed
        if outcome.allowed:
            return
        if outcome.action is Action.BLOCK and outcome.rule is not None:
            raise _blocked(ids.encode("rule", outcome.rule))
        verdict = facts.verdict
        new = isinstance(verdict, Held) and verdict.id not in facts.verdicts
        action = self._verdict(exchange, facts, verdict) if new and isinstance(verdict, Held) else ""
        if (outcome.action is Action.CHALLENGE or action == "challenge") and self._asks(exchange):
            raise errors.forbidden(
                "challenge_required", f"Solve the task of {PATH} first, and send its clearance with the request."
            )

    def _verdict(self, exchange: Exchange, facts: RequestFacts, verdict: Held) -> str:
        facts.verdicts = (*facts.verdicts, verdict.id)
        if verdict.shadow:
            self._acted.labels("verdict", verdict.action, "shadow").inc()
            return ""
        self._acted.labels("verdict", verdict.action, "enforce").inc()
        facts.verdict_id = verdict.id
        match verdict.action:
            case "block":
                raise _blocked(verdict.id)
            case "revoke":
                raise errors.unauthenticated(
                    "credential_revoked",
                    "This credential was revoked; sign in again.",
                    metadata={"error": "invalid_token"},
                )
            case "throttle":
                exchange.cost_factor = THROTTLED_COST
        return verdict.action

    def _asks(self, exchange: Exchange) -> bool:
        # Where a task is fetched none can be asked for, and a preflight carries no clearance.
        if exchange.path == PATH or exchange.path.startswith(f"{PATH}/") or exchange.request.method == "OPTIONS":
            return False
        return not self._challenges.cleared(exchange)

    def _note(self, outcome: Outcome) -> None:
        if outcome.allowed:
            self._acted.labels("list", "allow", "enforce").inc()
        if outcome.action is not None:
            self._acted.labels("rule", outcome.action.value, "enforce").inc()
        if outcome.shadow:
            self._acted.labels("rule", "any", "shadow").inc()


def _blocked(by: str) -> errors.GatefoldError:
    return errors.forbidden("firewall_blocked", f"This request was refused ({by}).")


network_of = lru_cache(maxsize=4096)(activity.network_of)
"""The /24 or /48 around an address, as activities have it."""
