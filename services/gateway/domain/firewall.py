"""Owns the firewall's judgement: a bundle's rules and lists, compiled to one function a phase, and what follows."""

import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any
from uuid import UUID

from libs import errors
from libs.errors import Violation
from services.gateway.domain.bundle import Action, Bundle, EntryList, ListKind, Mode, Rule
from services.gateway.domain.expression import FIELDS, Engine, ExpressionError, Field, Kind, Node, Schema, check, parse
from services.gateway.domain.expression.index import FieldIndex, Hint, hints, indexed
from services.gateway.domain.expression.source import FAILED, Source, fields_of
from services.gateway.domain.lists import Members
from services.gateway.domain.networks import NetworkMap, parse_address, parse_network

MOST_RULES = 1_000
MOST_LISTS = 100
MOST_ENTRIES = 1_000_000
"""Of all lists together."""
MOST_AGENTS = 2_000
"""Of one list: each new User-Agent is searched for all of them."""
MOST_COST = 50_000
"""Of all rules together."""
LONGEST_PARAMETER = 64
RATE_CLASSES = frozenset({"read", "write", "strict", "bulk", "webhook"})
"""Those of the edge policies; a bundle's quotas may name more."""

_NEVER = float("inf")
_WORD = frozenset(string.ascii_letters + string.digits + "_-.")


class Phase(IntEnum):
    """When a rule is looked at."""

    BEFORE = 0
    """As soon as the request's head was read."""
    AFTER = 1
    """Once the caller is known: rules that read `caller.*`."""


@dataclass(slots=True)
class Facts:
    """What rules know of one request, each thing named as its field with an underscore for the dot."""

    client_address: str = ""
    client_country: str = ""
    client_asn: int = 0
    client_crawler: str = ""
    client_verified_crawler: bool = False
    request_method: str = "GET"
    request_path: str = "/"
    request_query: str = ""
    request_headers: Mapping[str, str] = field(default_factory=dict)
    request_user_agent: str = ""
    request_content_type: str = ""
    request_size: int = 0
    request_route: str = ""
    tags: tuple[str, ...] = ()
    verdict_action: str = ""
    verdict_reasons: tuple[str, ...] = ()
    caller_kind: str = ""
    caller_key: str = ""
    caller_account: str = ""
    caller_actor: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What follows from the rules of one phase."""

    action: Action | None = None
    """CHALLENGE or BLOCK, or nothing."""
    rule: UUID | None = None
    """Whose action it is."""
    rates: tuple[str, ...] = ()
    """Rate classes to hold the request against, too."""
    ends: bool = False
    """No later rule is to be looked at."""
    allowed: bool = False
    """On a list that allows: nothing is held against it but rate limits."""
    matched: tuple[UUID, ...] = ()
    """Rules that matched and count, in the order they were looked at."""
    shadow: tuple[UUID, ...] = ()
    """Rules that matched and do not count yet."""


PASSED = Outcome()
_ALLOWED = Outcome(allowed=True, ends=True)


@dataclass(frozen=True, slots=True)
class _Phase:
    """The rules of one phase: which can match, and whether they do."""

    candidates: Callable[[Any], int]
    tests: Mapping[int, Callable[[Any], object]]
    """By the rule's bit."""
    tagged: Mapping[str, int]
    """Rules that need a tag."""
    indexes: Sequence[FieldIndex]


class Ruleset:
    """A bundle, compiled. Made by `compile_bundle`; judging changes nothing in it but its counters."""

    def __init__(
        self,
        bundle: Bundle,
        rules: Sequence[Rule],
        phases: tuple[_Phase, _Phase],
        networks: NetworkMap,
        members: Sequence[Members],
        lists: Mapping[str, int],
    ) -> None:
        self.bundle = bundle
        self._rules = rules
        self._phases = phases
        self._networks = networks
        self._members = members
        self._lists = lists
        self._allow = 1 << len(rules)
        self._nothing = self._allow << 1
        self._numbers = {rule.id: number for number, rule in enumerate(rules)}
        self._hits = [0] * len(rules)
        self._failures = [0] * len(rules)
        self._on = 0
        self._changes_at = -_NEVER

    @property
    def version(self) -> int:
        """Of the bundle."""
        return self.bundle.version

    @property
    def asks_callers(self) -> bool:
        """Whether any rule is looked at once the caller is known."""
        return bool(self._phases[Phase.AFTER].tests)

    def judge(self, facts: Any, phase: Phase, now: float) -> Outcome:
        """Returns what follows for a request.

        `facts` is `Facts`, or anything with its attributes; its `tags` grow. `now` is in seconds of the epoch.
        """
        if now >= self._changes_at:
            self._settle(now)
        here = self._phases[phase]
        waiting = here.candidates(facts)
        if waiting == self._nothing and not facts.tags:
            return PASSED
        if waiting & self._allow:
            return _ALLOWED
        for tag in facts.tags:
            waiting |= here.tagged.get(tag, 0)
        waiting &= self._on
        return self._walk(here, facts, waiting) if waiting else PASSED

    def _walk(self, here: _Phase, facts: Any, waiting: int) -> Outcome:
        action: Action | None = None
        by: UUID | None = None
        rates: list[str] = []
        matched: list[UUID] = []
        shadow: list[UUID] = []
        ends = False
        while waiting and not ends:
            mark = waiting & -waiting
            waiting ^= mark
            number = mark.bit_length() - 1
            found = here.tests[number](facts)
            if found is FAILED:
                self._failures[number] += 1
            if found is not True:
                continue
            self._hits[number] += 1
            rule = self._rules[number]
            if rule.mode is Mode.SHADOW:
                shadow.append(rule.id)
                continue
            matched.append(rule.id)
            match rule.action:
                case Action.TAG if rule.parameter not in facts.tags:
                    facts.tags = (*facts.tags, rule.parameter)
                    waiting |= here.tagged.get(rule.parameter, 0) & self._on & -(mark << 1)
                case Action.RATE:
                    rates.append(rule.parameter)
                case Action.SKIP:
                    ends = True
                case Action.CHALLENGE if action is None:
                    # A later rule may still refuse what this one would let through for a proof.
                    action, by = Action.CHALLENGE, rule.id
                case Action.BLOCK:
                    action, by, ends = Action.BLOCK, rule.id, True
        return Outcome(action, by, tuple(rates), ends, matched=tuple(matched), shadow=tuple(shadow))

    def recount(self, outcome: Outcome) -> None:
        """Counts once more what matched a request: the same has come again."""
        for rule in (*outcome.matched, *outcome.shadow):
            number = self._numbers.get(rule)
            if number is not None:
                self._hits[number] += 1

    def counters(self) -> dict[UUID, tuple[int, int]]:
        """Returns how often each rule matched, and how often evaluating it failed, since it was compiled."""
        return {
            rule.id: (hits, failures)
            for rule, hits, failures in zip(self._rules, self._hits, self._failures, strict=True)
        }

    def on_list(self, name: str, address: str) -> bool | None:
        """Tells whether an address is on a list of networks; None where there is no such list."""
        mark = self._lists.get(name)
        if mark is None:
            return None
        try:
            return bool(self._networks.marks(parse_address(address)) & mark)
        except ValueError:
            return False

    def self_test(self) -> None:
        """Judges made-up requests; raises whatever goes wrong, and nothing of it is counted."""
        empty = Facts()
        texts = {known.name: "x" * 100 for known in FIELDS if known.kind is Kind.STRING}
        full = Facts(client_address="2001:db8::1", client_asn=64500, request_headers={"accept": "*/*"}, tags=("x",))
        for name, text in texts.items():
            setattr(full, name.replace(".", "_"), text)
        for facts in (empty, Facts(client_address="192.0.2.1"), full):
            for phase in Phase:
                self.judge(facts, phase, 0.0)
                for test in self._phases[phase].tests.values():
                    test(facts)
        self._hits = [0] * len(self._rules)
        self._failures = [0] * len(self._rules)
        for index in (index for here in self._phases for index in here.indexes):
            index.kept.clear()
        self._changes_at = -_NEVER

    def _settle(self, now: float) -> None:
        """Takes account of what has ended."""
        self._networks.forget(now)
        for members in self._members:
            members.forget(now)
        for index in (index for here in self._phases for index in here.indexes):
            index.kept.clear()
        ends = [rule.expires_at.timestamp() if rule.expires_at else _NEVER for rule in self._rules]
        self._on = sum(1 << number for number, end in enumerate(ends) if end > now)
        self._changes_at = min(
            [
                self._networks.next_end,
                *(members.next_end for members in self._members),
                *(end for end in ends if end > now),
                _NEVER,
            ]
        )


def compile_bundle(bundle: Bundle, engine: Engine, *, most_entries: int = MOST_ENTRIES) -> Ruleset:
    """Returns a bundle ready to judge; raises `invalid("rules_invalid")` with everything that is wrong with it.

    A bundle is taken whole or not at all. With large lists it takes seconds: call it in a thread.
    """
    problems = _Problems()
    _check_lists(bundle, problems, most_entries)
    schema = Schema(lists={entries.name: entries.kind.value for entries in bundle.lists})
    nodes = _check_rules(bundle, schema, engine, problems)
    problems.raise_any()
    ruleset = _Compiler(bundle, nodes, engine).ruleset(problems)
    ruleset.self_test()
    return ruleset


def check_expression(text: str, lists: Mapping[str, ListKind], engine: Engine) -> Phase:
    """Returns when a rule with this expression is looked at; raises ExpressionError for one that is refused."""
    node = check(parse(text), Schema(lists={name: kind.value for name, kind in lists.items()}), engine)
    return _phase(node)


class _Problems:
    """What is wrong with a bundle."""

    def __init__(self) -> None:
        self.found: list[Violation] = []

    def add(self, where: str, rule: str, detail: str) -> None:
        self.found.append(Violation(where, rule, detail))

    def raise_any(self) -> None:
        if self.found:
            raise errors.invalid(
                "rules_invalid", f"{_things(len(self.found))} wrong; nothing was taken.", violations=self.found[:20]
            )


def _things(number: int) -> str:
    return "1 thing is" if number == 1 else f"{number} things are"


def _check_lists(bundle: Bundle, problems: _Problems, most_entries: int) -> None:
    if len(bundle.lists) > MOST_LISTS:
        problems.add("lists", "max_items", f"There are {MOST_LISTS} lists at most.")
    if sum(len(entries.entries) for entries in bundle.lists) > most_entries:
        problems.add("lists", "max_items", f"All lists together have {most_entries:,} entries at most.")
        problems.raise_any()
    for name, times in Counter(entries.name for entries in bundle.lists).items():
        if times > 1:
            problems.add("lists", "unique", f"There are {times} lists {name!r}.")
    for number, entries in enumerate(bundle.lists):
        if entries.kind is ListKind.USER_AGENTS and len(entries.entries) > MOST_AGENTS:
            problems.add(
                f"lists[{number}].entries", "max_items", f"{entries.name!r}: there are {MOST_AGENTS:,} agents at most."
            )
        if entries.allows and entries.kind is ListKind.EMAIL_DOMAINS:
            problems.add(f"lists[{number}].allows", "in", f"{entries.name!r}: domains of mails allow no requests.")


def _check_rules(bundle: Bundle, schema: Schema, engine: Engine, problems: _Problems) -> list[tuple[Rule, Node]]:
    if len(bundle.rules) > MOST_RULES:
        problems.add("rules", "max_items", f"There are {MOST_RULES:,} rules at most.")
        problems.raise_any()
    nodes: list[tuple[Rule, Node]] = []
    rates = RATE_CLASSES | {quota.name.partition(".")[0] for quota in bundle.quotas}
    cost = 0
    for number, rule in enumerate(bundle.rules):
        if wrong := _parameter(rule, rates):
            problems.add(f"rules[{number}].parameter", "pattern", f"{rule.name!r}: {wrong}")
        try:
            node = check(parse(rule.expression), schema, engine)
        except ExpressionError as error:
            problems.add(f"rules[{number}].expression", "expression", f"{rule.name!r}: {error}")
            continue
        nodes.append((rule, node))
        cost += node.cost
    if cost > MOST_COST:
        problems.add("rules", "cost", f"The rules together cost {cost:,}; {MOST_COST:,} is the most.")
    return nodes


def _parameter(rule: Rule, rates: frozenset[str]) -> str:
    """Returns what is wrong with a rule's parameter."""
    if rule.action is Action.RATE:
        return "" if rule.parameter in rates else f"there is no rate class {rule.parameter[:LONGEST_PARAMETER]!r}."
    if rule.action is Action.TAG and not (
        0 < len(rule.parameter) <= LONGEST_PARAMETER and set(rule.parameter) <= _WORD
    ):
        return "a tag has 1 to 64 letters, digits, '_', '-' and '.'."
    return ""


def _phase(node: Node) -> Phase:
    later = {known.attribute for known in FIELDS if known.known_later}
    return Phase.AFTER if later & set(fields_of(node)) else Phase.BEFORE


class _Compiler:
    """Makes a ruleset of rules that were checked."""

    def __init__(self, bundle: Bundle, nodes: Sequence[tuple[Rule, Node]], engine: Engine) -> None:
        self._bundle = bundle
        self._engine = engine
        ordered = sorted(
            (item for item in nodes if item[0].mode is not Mode.OFF),
            key=lambda item: (item[0].priority, item[0].id.int),
        )
        self._rules = [rule for rule, _ in ordered]
        self._nodes = [node for _, node in ordered]
        self._allow = 1 << len(ordered)
        self._nothing = self._allow << 1
        self._networks = NetworkMap()
        self._marks: dict[str, int] = {}
        """Of networks' lists by name, and of networks in rules by their text with a slash before it."""
        self._members: dict[str, Members] = {}

    def ruleset(self, problems: _Problems) -> Ruleset:
        for number, entries in enumerate(self._bundle.lists):
            try:
                self._take(entries)
            except ValueError as error:
                problems.add(f"lists[{number}].entries", "entry", f"{entries.name!r}: {error}")
        problems.raise_any()
        phases = (self._phase(Phase.BEFORE), self._phase(Phase.AFTER))
        lists = {name: mark for name, mark in self._marks.items() if not name.startswith("/")}
        return Ruleset(self._bundle, self._rules, phases, self._networks, list(self._members.values()), lists)

    def _take(self, entries: EntryList) -> None:
        if entries.kind is not ListKind.NETWORKS:
            kept = {text: end.timestamp() if end else None for text, end in entries.entries}
            self._members[entries.name] = Members(entries.kind, self._engine, kept)
            return
        mark = self._mark(entries.name)
        for text, end in entries.entries:
            self._networks.add(parse_network(text), mark, end.timestamp() if end else None)

    def _mark(self, name: str) -> int:
        return self._marks.setdefault(name, 1 << len(self._marks))

    def _address_test(self, mark: int) -> Callable[[object], bool]:
        marks_of = self._marks_of
        return lambda address: bool(marks_of(address) & mark)

    def _marks_of(self, address: object) -> int:
        try:
            return self._networks.marks(parse_address(str(address)))
        except ValueError:
            # The address of a client that cannot be known is in no network.
            return 0

    def _tester(self, node: Node) -> Callable[[object], bool]:
        name = str(node.value)
        if node.form == "matches":
            found = self._engine.one(name)
            return lambda text: found(str(text))
        if node.form == "in_cidr":
            mark = self._mark(f"/{name}")
            self._networks.add(parse_network(name), mark)
            return self._address_test(mark)
        members = self._members.get(name)
        return self._address_test(self._mark(name)) if members is None else members.test

    def _phase(self, phase: Phase) -> _Phase:
        numbers = [number for number, node in enumerate(self._nodes) if _phase(node) is phase]
        chosen: list[tuple[int, tuple[Hint, ...]]] = []
        swept: list[int] = []
        always = self._nothing
        for number in numbers:
            found = hints(self._nodes[number])
            if found is not None:
                chosen.append((1 << number, found))
            elif any(known.changes and known.attribute in fields_of(self._nodes[number]) for known in FIELDS):
                always |= 1 << number
            else:
                swept.append(number)
        indexes, tagged = indexed(chosen, self._engine, self._nothing, self._tester)
        if phase is Phase.BEFORE:
            self._allowing(indexes)
        for index in indexes.values():
            index.ready()
        source = Source(self._tester)
        written = [self._candidates(source, indexes, swept, always)]
        written += [f"def r{number}(f): return {source.of(self._nodes[number])}" for number in numbers]
        code = compile("\n".join(written), "<rules>", "exec")
        exec(code, source.names)  # noqa: S102 — of our own writing: no text of a rule is in it
        made: dict[str, Any] = source.names
        tests = {number: made[f"r{number}"] for number in numbers}
        return _Phase(made["candidates"], tests, tagged, list(indexes.values()))

    def _allowing(self, indexes: dict[Field, FieldIndex]) -> None:
        """Has whoever is on a list that allows marked as such."""
        named = {known.name: known for known in FIELDS}
        about = {
            ListKind.NETWORKS: named["client.address"],
            ListKind.COUNTRIES: named["client.country"],
            ListKind.ASNS: named["client.asn"],
            ListKind.USER_AGENTS: named["request.user_agent"],
        }
        for entries in self._bundle.lists:
            if entries.allows:
                members = self._members.get(entries.name)
                test = self._address_test(self._mark(entries.name)) if members is None else members.test
                index = indexes.setdefault(about[entries.kind], FieldIndex(self._engine, self._nothing))
                index.add_test(test, self._allow)

    def _candidates(
        self, source: Source, indexes: Mapping[Field, FieldIndex], swept: Sequence[int], always: int
    ) -> str:
        """Writes the function that tells which rules can match.

        It looks fields up in their indexes, and evaluates those rules that no index can rule out.
        """
        lines = ["def candidates(f):", f" m = {always}"]
        for known, index in indexes.items():
            lines += index.lines(source, known)
        cheap = {known.attribute for known in FIELDS if not (known.costly or known.changes)}
        read = Counter(name for number in swept for name in fields_of(self._nodes[number]) if name in cheap)
        for name, times in read.items():
            if times > 1:
                source.locals[name] = f"v_{name}"
                lines.append(f" v_{name} = f.{name}")
        for number in swept:
            node = self._nodes[number]
            unless = " is not False" if node.fails else ""
            lines.append(f" if {source.of(node)}{unless}: m |= {1 << number}")
        source.locals.clear()
        lines.append(" return m")
        return "\n".join(lines)
