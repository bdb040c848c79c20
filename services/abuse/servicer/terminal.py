"""Owns reviewing cases at a terminal: for whoever runs the platform, until there are pages."""

import argparse
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from gatefold.abuse.v1 import case_pb2
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from libs import errors, ids
from libs.postgres import PLATFORM
from services.abuse.domain.case import ActionKind, CaseState, Judgement, Wanted, needs_four_eyes
from services.abuse.usecases import present
from services.abuse.usecases.case_actions import CaseActions
from services.abuse.usecases.cases import Cases
from services.abuse.usecases.reviewer import Reviewer

ACTOR = "terminal"
"""Who works here unless it is said. What needs two people is asked for here in a person's name, and agreed to by
another over the API alone: a terminal proves no second factor.
"""
_HOURS = 24.0
_SECONDS_PER_HOUR = 3600
_STATES = {"open": CaseState.OPEN, "decided": CaseState.DECIDED, "all": None}
_COLUMNS = ("case", "opened", "sev", "scope", "entity", "conf", "state", "reasons")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads the command; argparse ends the process with 2 for one that cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m services.abuse")
    commands = parser.add_subparsers(dest="command", required=True)
    cases = commands.add_parser("cases", help="lists cases; shows or decides one, or acts on it")
    cases.add_argument("--account", default="", help="acct_…; the platform's own cases when not given")
    cases.add_argument("--json", action="store_true", help="answers as the API does")
    steps = cases.add_subparsers(dest="step")
    listed = steps.add_parser("list")
    listed.add_argument("--state", choices=_STATES, default="open")
    listed.add_argument("--severity", type=int, default=0)
    listed.add_argument("--reason", default="")
    listed.add_argument("--limit", type=int, default=20)
    listed.add_argument("--cursor", default="")
    shown = steps.add_parser("show")
    shown.add_argument("case")
    decided = steps.add_parser("decide")
    decided.add_argument("case")
    decided.add_argument("judgement", choices=[judgement.value for judgement in Judgement])
    decided.add_argument("--confidence", type=float, default=1.0)
    decided.add_argument("--note", default="")
    for kind, does in (("lift", "ends what is done"), ("block", "blocks"), ("revoke", "ends sessions or the key")):
        acted = steps.add_parser(kind, help=f"{does}, about the case's entity")
        acted.add_argument("case")
        acted.add_argument("--as", dest="person", default="", help="per_… who asks, where a second person has to agree")
        if kind != "lift":
            acted.add_argument("--hours", type=float, default=_HOURS)
    undone = steps.add_parser("undo", help="takes an action back")
    undone.add_argument("case")
    undone.add_argument("action", help="cact_…")
    return parser.parse_args(arguments)


async def run(asked: argparse.Namespace, cases: Cases, actions: CaseActions) -> str:
    """Does what was asked for and returns what is to be shown; raises GatefoldError."""
    account = ids.decode("acct", asked.account, field="account") if asked.account else PLATFORM
    who = Reviewer(account, ACTOR)
    step = asked.step or "list"
    do: dict[str, Callable[[], Awaitable[str]]] = {
        "list": lambda: _list(asked, cases, who),
        "show": lambda: _show(asked, cases, who),
        "decide": lambda: _decide(asked, cases, who),
        "lift": lambda: _act(asked, actions, account),
        "block": lambda: _act(asked, actions, account),
        "revoke": lambda: _act(asked, actions, account),
        "undo": lambda: _undo(asked, actions, who),
    }
    return await do[step]()


async def _list(asked: argparse.Namespace, cases: Cases, who: Reviewer) -> str:
    plain = asked.step is None
    wanted = (
        Wanted(state=CaseState.OPEN)
        if plain
        else Wanted(state=_STATES[asked.state], severity=asked.severity, reason=asked.reason)
    )
    page = await cases.list_cases(who, wanted, limit=20 if plain else asked.limit, cursor="" if plain else asked.cursor)
    if asked.json:
        return _json(page)
    rows = [_COLUMNS, *(_row(case) for case in page.data)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if page.next_cursor:
        lines.append(f"more: --cursor {page.next_cursor}")
    return "\n".join(lines)


async def _show(asked: argparse.Namespace, cases: Cases, who: Reviewer) -> str:
    detail = await cases.get_case(who, _case(asked.case))
    if asked.json:
        return _json(detail)
    case = detail.case
    lines = [
        f"{case.id}  {_state(case)}",
        f"  {case.scope} {case.entity}  severity {case.severity}  confidence {case.confidence:.2f}"
        f"  opened {_time(case.opened_at)}{'  appealed' if case.appealed else ''}",
        f"  reasons    {', '.join(case.reasons) or 'none'}",
        f"  detectors  {', '.join(case.detectors) or 'none'}",
    ]
    for verdict in detail.verdicts:
        shadow = " (shadow)" if verdict.shadow else ""
        lines.append(
            f"verdict {verdict.id}  {verdict.action}{shadow} {verdict.state}"
            f"  {_time(verdict.decided_at)} until {_time(verdict.expires_at)}  confidence {verdict.confidence:.2f}"
        )
        lines += [
            f"    {held.signal:<44} {held.value:>10.2f} from {held.threshold:g}  {held.weight:+.1f}"
            for held in sorted(verdict.evidence, key=lambda item: -item.weight)
        ]
    lines += [f"linked  {item.scope} {item.entity}  other cases {item.other_cases}" for item in detail.linked]
    lines += [f"similar {item.case.id}  {_state(item.case)}" for item in detail.similar]
    lines += [f"{_time(step.at)}  {step.kind} {step.detail}  {step.actor}".rstrip() for step in detail.timeline]
    return "\n".join(lines)


async def _decide(asked: argparse.Namespace, cases: Cases, who: Reviewer) -> str:
    case = await cases.decide(who, _case(asked.case), Judgement(asked.judgement), asked.confidence, asked.note)
    return _json(case) if asked.json else f"{case.id}  {_state(case)}"


async def _act(asked: argparse.Namespace, actions: CaseActions, account: UUID) -> str:
    kind = ActionKind(asked.step)
    seconds = 0 if kind is ActionKind.LIFT else round(asked.hours * _SECONDS_PER_HOUR)
    if asked.person:
        ids.decode("per", asked.person, field="as")
    elif needs_four_eyes(kind, seconds):
        # Or whoever asks here would be the other person to agree there.
        raise errors.invalid(
            "person_required", "Say with --as which person asks: another one has to agree.", field="as"
        )
    who = Reviewer(account, asked.person or ACTOR)
    action = await actions.act(who, _case(asked.case), kind, seconds)
    if asked.json:
        return _json(action)
    if action.state != case_pb2.ACTION_STATE_WAITING:
        return f"{action.id}  {kind.value} done"
    plane = "" if asked.account else "/platform"
    return (
        f"{action.id}  {kind.value} waits: within a day, and with a second factor, another person sends\n"
        f"POST /v1{plane}/abuse/cases/{asked.case}/actions/{action.id}/approve"
    )


async def _undo(asked: argparse.Namespace, actions: CaseActions, who: Reviewer) -> str:
    action = await actions.undo(who, _case(asked.case), ids.decode("cact", asked.action, field="action"))
    return _json(action) if asked.json else f"{action.id}  undone"


def _case(text: str) -> UUID:
    return ids.decode("case", text, field="case")


def _row(case: case_pb2.Case) -> tuple[str, ...]:
    reasons = ", ".join(case.reasons[:3])
    return (
        case.id,
        _time(case.opened_at),
        str(case.severity),
        case.scope,
        case.entity[:12],
        f"{case.confidence:.2f}",
        _state(case),
        f"{reasons}{' (appealed)' if case.appealed else ''}",
    )


def _state(case: case_pb2.Case) -> str:
    names = {number: judgement.value for judgement, number in present.JUDGEMENTS.items()}
    if case.state == case_pb2.CASE_STATE_DECIDED:
        return names[case.judgement]
    return f"open, held by {case.claimed_by}" if case.claimed_by else "open"


def _time(stamp: Timestamp) -> str:
    return f"{stamp.ToDatetime():%Y-%m-%d %H:%M}"


def _json(message: case_pb2.ListCasesResponse | case_pb2.CaseDetail | case_pb2.Case | case_pb2.CaseAction) -> str:
    return json_format.MessageToJson(message, preserving_proto_field_name=True)
