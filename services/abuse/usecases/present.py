"""Owns how verdicts, cases and detectors are shown: as messages."""

from collections.abc import Iterable
from datetime import datetime
from types import MappingProxyType
from uuid import UUID

from gatefold.abuse.v1 import case_pb2, detector_pb2
from gatefold.activity.v1 import activity_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from libs import ids
from libs.postgres import PLATFORM
from services.abuse.domain.case import ActionKind, ActionState, Case, CaseAction, CaseState, Judgement, Origin, Step
from services.abuse.domain.detector import Action, Mode
from services.abuse.domain.precision import Precision
from services.abuse.domain.verdict import State, Verdict

ACTIONS = MappingProxyType(
    {
        Action.CHALLENGE: activity_pb2.Verdict.ACTION_CHALLENGE,
        Action.THROTTLE: activity_pb2.Verdict.ACTION_THROTTLE,
        Action.BLOCK: activity_pb2.Verdict.ACTION_BLOCK,
        Action.REVOKE: activity_pb2.Verdict.ACTION_REVOKE,
    }
)
STATES = MappingProxyType({CaseState.OPEN: case_pb2.CASE_STATE_OPEN, CaseState.DECIDED: case_pb2.CASE_STATE_DECIDED})
ORIGINS = MappingProxyType(
    {
        Origin.VERDICT: case_pb2.CASE_ORIGIN_VERDICT,
        Origin.APPEAL: case_pb2.CASE_ORIGIN_APPEAL,
        Origin.AUDIT: case_pb2.CASE_ORIGIN_AUDIT,
    }
)
JUDGEMENTS = MappingProxyType(
    {
        Judgement.ABUSE: case_pb2.JUDGEMENT_ABUSE,
        Judgement.LEGIT: case_pb2.JUDGEMENT_LEGIT,
        Judgement.UNSURE: case_pb2.JUDGEMENT_UNSURE,
    }
)
KINDS = MappingProxyType(
    {
        ActionKind.LIFT: case_pb2.ACTION_KIND_LIFT,
        ActionKind.EXTEND: case_pb2.ACTION_KIND_EXTEND,
        ActionKind.BLOCK: case_pb2.ACTION_KIND_BLOCK,
        ActionKind.REVOKE: case_pb2.ACTION_KIND_REVOKE,
    }
)
ACTION_STATES = MappingProxyType(
    {
        ActionState.WAITING: case_pb2.ACTION_STATE_WAITING,
        ActionState.DONE: case_pb2.ACTION_STATE_DONE,
        ActionState.UNDONE: case_pb2.ACTION_STATE_UNDONE,
    }
)
MODES = MappingProxyType(
    {
        Mode.OFF: detector_pb2.DETECTOR_MODE_OFF,
        Mode.SHADOW: detector_pb2.DETECTOR_MODE_SHADOW,
        Mode.ENFORCE: detector_pb2.DETECTOR_MODE_ENFORCE,
    }
)


def told(account: UUID, verdict: Verdict) -> activity_pb2.Verdict:
    """Returns a verdict as those are told of it who act on it."""
    return activity_pb2.Verdict(
        id=ids.encode("verdict", verdict.id),
        account_id=ids.encode("acct", account) if account != PLATFORM else "",
        scope=verdict.scope.value,
        entity_hash=verdict.entity,
        action=ACTIONS.get(verdict.action, activity_pb2.Verdict.ACTION_UNSPECIFIED),
        reasons=verdict.reasons,
        confidence=verdict.confidence,
        rule_version=verdict.rule_version,
        expires_at=timestamp(verdict.expires_at),
        revision=verdict.revision,
        revoked=verdict.state is not State.ACTIVE,
        shadow=verdict.shadow,
    )


def case(found: Case, now: datetime) -> case_pb2.Case:
    """Returns a case; a claim that is over is not shown."""
    held = found.holder(now)
    return case_pb2.Case(
        id=ids.encode("case", found.id),
        state=STATES[found.state],
        origin=ORIGINS[found.origin],
        severity=found.severity,
        scope=found.scope.value,
        entity=found.entity.hex(),
        reasons=found.reasons,
        detectors=found.detectors,
        confidence=found.confidence,
        appealed=found.appealed_at is not None,
        claimed_by=held or "",
        claimed_until=timestamp(found.claimed_until) if held else None,
        judgement=JUDGEMENTS[found.judgement] if found.judgement else case_pb2.JUDGEMENT_UNSPECIFIED,
        judged_confidence=found.judged_confidence or 0.0,
        note=found.note,
        decided_by=found.decided_by or "",
        decided_at=timestamp(found.decided_at),
        opened_at=timestamp(found.opened_at),
        updated_at=timestamp(found.updated_at),
    )


def verdict(found: Verdict) -> case_pb2.CaseVerdict:
    """Returns a verdict as it is shown in its case."""
    return case_pb2.CaseVerdict(
        id=ids.encode("verdict", found.id),
        action=found.action.name.lower(),
        state=found.state.value,
        shadow=found.shadow,
        reasons=found.reasons,
        confidence=found.confidence,
        evidence=[
            case_pb2.Evidence(signal=name, value=held.value, threshold=held.threshold, weight=held.weight)
            for name, held in found.evidence.items()
        ],
        rule_version=found.rule_version,
        strikes=found.strikes,
        revision=found.revision,
        request_id=found.request_id,
        decided_at=timestamp(found.decided_at),
        expires_at=timestamp(found.expires_at),
    )


def steps(found: Iterable[Step]) -> list[case_pb2.CaseStep]:
    """Returns a timeline."""
    return [
        case_pb2.CaseStep(kind=step.kind, actor=step.actor, detail=step.detail, at=timestamp(step.at)) for step in found
    ]


def action(found: CaseAction) -> case_pb2.CaseAction:
    """Returns an action."""
    return case_pb2.CaseAction(
        id=ids.encode("cact", found.id),
        kind=KINDS[found.kind],
        state=ACTION_STATES[found.state],
        seconds=found.seconds,
        requested_by=found.requested_by,
        requested_at=timestamp(found.requested_at),
        approved_by=found.approved_by or "",
        approved_at=timestamp(found.approved_at),
    )


def precision(held: Precision | None) -> detector_pb2.Precision:
    """Returns how often people agreed."""
    held = held or Precision(0, 0)
    lower, upper = held.interval
    return detector_pb2.Precision(labels=held.labels, abuse=held.abuse, value=held.value, lower=lower, upper=upper)


def timestamp(at: datetime | None) -> Timestamp | None:
    """Returns a time."""
    if at is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp
