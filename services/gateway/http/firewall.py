"""Owns holding a request against rules and verdicts: by its head first, and once the caller is known."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from uuid import UUID

from libs import errors, ids
from libs.caller import Caller
from libs.clock import WallClock
from libs.telemetry import Telemetry
from services.gateway.domain.bundle import Action, Bundle, Mode, Rule
from services.gateway.domain.expression import Engine
from services.gateway.domain.firewall import PASSED, Facts, Outcome, Phase, Ruleset, compile_bundle
from services.gateway.domain.hits import HitCounter
from services.gateway.domain.lookback import Lookback
from services.gateway.http.challenge import PATH, Challenges
from services.gateway.http.exchange import Exchange
from services.gateway.http.facts import RequestFacts, Sources
from services.gateway.http.verdicts import Held

THROTTLED_COST = 4
"""How much more a request of a throttled client counts against its limits."""
_PROBES = frozenset({"/healthz", "/readyz"})
_APPEALS = "/v1/abuse/appeals"
"""Whoever a verdict is wrong about can say so."""


class Firewall:
    """Lets requests through, or refuses them."""

    def __init__(
        self,
        rules: Ruleset,
        sources: Sources,
        challenges: Challenges,
        hits: HitCounter,
        lookback: Lookback[Facts],
        *,
        clock: WallClock,
        telemetry: Telemetry,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed` is called when other rules hold."""
        self._changed = changed
        self._rules = rules
        self._sources = sources
        self._challenges = challenges
        self.hits = hits
        """How often rules matched, as of the last `count`."""
        self.lookback = lookback
        """A sample of what rules knew of recent requests."""
        self._clock = clock
        acted = telemetry.counter(
            "gateway_firewall", "Requests that a rule or a verdict acted on", ("by", "action", "mode")
        )
        self._acted = lru_cache(64)(acted.labels)

    @property
    def version(self) -> int:
        """Of the bundle whose rules hold."""
        return self._rules.version

    def replace(self, rules: Ruleset) -> None:
        """Holds all requests from now on against other rules."""
        self.count()
        self.hits.begin()
        self._rules = rules
        self._changed()

    def count(self) -> None:
        """Takes note of how often rules matched until now."""
        enforced = {rule.id for rule in self._rules.bundle.rules if rule.mode is Mode.ENFORCE}
        self.hits.advance(self._rules.counters(), enforced)

    def matcher(self, engine: Engine) -> Callable[[str], Callable[[Facts], bool]]:
        """Returns what makes, of an expression, a test of requests that were kept; with the lists that hold now."""

        def matches(expression: str) -> Callable[[Facts], bool]:
            rule = Rule(UUID(int=0), "trial", expression, Action.LOG, mode=Mode.ENFORCE)
            lists = tuple(replace(one, allows=False) for one in self._rules.bundle.lists)
            tried = compile_bundle(Bundle(rules=(rule,), lists=lists), engine)
            now = self._clock.wall().timestamp()
            return lambda facts: any(tried.judge(facts, phase, now).matched for phase in Phase)

        return matches

    def remember(self, exchange: Exchange) -> None:
        """Takes a request that was answered into the sample, or not."""
        facts = exchange.facts
        if facts is not None and exchange.path not in _PROBES:
            self.lookback.note(facts.kept, exchange.at)

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
            if self._rules.asks_callers or self._sources.verdicts:
                self._check(exchange, facts, Phase.AFTER)

    def _check(self, exchange: Exchange, facts: RequestFacts, phase: Phase) -> None:
        outcome = PASSED if facts.ends else self._rules.judge(facts, phase, exchange.at)
        if outcome is not PASSED:
            self._note(outcome)
            exchange.counts.append(partial(self._recount, outcome))
            exchange.rates = (*exchange.rates, *outcome.rates)
            facts.ends = facts.ends or outcome.ends
            facts.allowed = outcome.allowed
            if outcome.allowed:
                return
            if outcome.action is Action.BLOCK and outcome.rule is not None:
                raise _blocked(ids.encode("rule", outcome.rule))
        if exchange.path == _APPEALS:
            return
        verdict = facts.verdict if self._sources.verdicts else None
        new = isinstance(verdict, Held) and verdict.id not in facts.verdicts
        action = self._verdict(exchange, facts, verdict) if new and isinstance(verdict, Held) else ""
        if (outcome.action is Action.CHALLENGE or action == "challenge") and self._asks(exchange):
            raise errors.forbidden(
                "challenge_required", f"Solve the task of {PATH} first, and send its clearance with the request."
            )

    def _verdict(self, exchange: Exchange, facts: RequestFacts, verdict: Held) -> str:
        facts.verdicts = (*facts.verdicts, verdict.id)
        if verdict.shadow:
            self._acted("verdict", verdict.action, "shadow").inc()
            return ""
        count = self._acted("verdict", verdict.action, "enforce").inc
        count()
        exchange.counts.append(count)
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

    def _recount(self, outcome: Outcome) -> None:
        self._note(outcome)
        self._rules.recount(outcome)

    def _note(self, outcome: Outcome) -> None:
        if outcome.allowed:
            self._acted("list", "allow", "enforce").inc()
        if outcome.action is not None:
            self._acted("rule", outcome.action.value, "enforce").inc()
        if outcome.shadow:
            self._acted("rule", "any", "shadow").inc()


def _blocked(by: str) -> errors.GatefoldError:
    return errors.forbidden("firewall_blocked", f"This request was refused ({by}).")
