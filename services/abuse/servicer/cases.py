"""Owns gatefold.abuse.v1.CaseService and PlatformCaseService at the wire, which do the same."""

from types import MappingProxyType

from gatefold.abuse.v1 import case_pb2, case_pb2_grpc

from libs import errors, ids
from services.abuse.domain.case import ActionKind, Judgement, Wanted
from services.abuse.usecases import present, reviewer
from services.abuse.usecases.case_actions import CaseActions
from services.abuse.usecases.cases import Cases

_STATES = MappingProxyType({number: state for state, number in present.STATES.items()})
_ORIGINS = MappingProxyType({number: origin for origin, number in present.ORIGINS.items()})
_JUDGEMENTS = MappingProxyType({number: judgement for judgement, number in present.JUDGEMENTS.items()})
_KINDS = MappingProxyType({number: kind for kind, number in present.KINDS.items()})


class _Review:
    """What both services do, for whoever the caller is."""

    def __init__(self, cases: Cases, actions: CaseActions) -> None:
        self._cases = cases
        self._actions = actions

    async def list(self, request: case_pb2.ListCasesRequest) -> case_pb2.ListCasesResponse:
        wanted = Wanted(
            state=_STATES.get(request.state),
            severity=request.severity,
            scope=request.scope,
            reason=request.reason,
            detector=request.detector,
            origin=_ORIGINS.get(request.origin),
        )
        return await self._cases.list_cases(reviewer.current(), wanted, limit=request.limit, cursor=request.cursor)

    async def get(self, request: case_pb2.GetCaseRequest) -> case_pb2.CaseDetail:
        return await self._cases.get_case(reviewer.current(), ids.decode("case", request.id))

    async def claim(self, request: case_pb2.ClaimCaseRequest) -> case_pb2.Case:
        return await self._cases.claim(reviewer.current(), ids.decode("case", request.id))

    async def release(self, request: case_pb2.ReleaseCaseRequest) -> case_pb2.Case:
        return await self._cases.release(reviewer.current(), ids.decode("case", request.id))

    async def decide(self, request: case_pb2.DecideCaseRequest) -> case_pb2.Case:
        case = ids.decode("case", request.id)
        judgement = _judgement(request.judgement)
        return await self._cases.decide(reviewer.current(), case, judgement, request.confidence, request.note)

    async def decide_many(self, request: case_pb2.BulkDecideCasesRequest) -> case_pb2.BulkDecideCasesResponse:
        judgement = _judgement(request.judgement)
        return await self._cases.decide_many(
            reviewer.current(), request.ids, judgement, request.confidence, request.note
        )

    async def act(self, request: case_pb2.ActOnCaseRequest) -> case_pb2.CaseAction:
        kind: ActionKind | None = _KINDS.get(request.kind)
        if kind is None:
            raise errors.invalid("action_unknown", "Say what is to be done.", field="kind")
        return await self._actions.act(reviewer.current(), ids.decode("case", request.id), kind, request.seconds)

    async def approve(self, request: case_pb2.ApproveCaseActionRequest) -> case_pb2.CaseAction:
        action = ids.decode("cact", request.action_id, field="action_id")
        return await self._actions.approve(reviewer.current(), ids.decode("case", request.id), action)

    async def undo(self, request: case_pb2.UndoCaseActionRequest) -> case_pb2.CaseAction:
        action = ids.decode("cact", request.action_id, field="action_id")
        return await self._actions.undo(reviewer.current(), ids.decode("case", request.id), action)

    async def statistics(self, request: case_pb2.GetAbuseStatisticsRequest) -> case_pb2.AbuseStatistics:
        return await self._cases.statistics(reviewer.current(), request.days)


def _judgement(number: int) -> Judgement:
    found: Judgement | None = _JUDGEMENTS.get(number)  # type: ignore[call-overload]
    if found is None:
        raise errors.invalid("judgement_unknown", "Say what the case is.", field="judgement")
    return found


class CaseServicer(case_pb2_grpc.CaseServiceServicer):
    """Cases of the caller's account."""

    def __init__(self, cases: Cases, actions: CaseActions) -> None:
        self._review = _Review(cases, actions)

    async def ListCases(self, request: case_pb2.ListCasesRequest, context: object) -> case_pb2.ListCasesResponse:
        """Lists cases."""
        return await self._review.list(request)

    async def GetCase(self, request: case_pb2.GetCaseRequest, context: object) -> case_pb2.CaseDetail:
        """Returns one case."""
        return await self._review.get(request)

    async def ClaimCase(self, request: case_pb2.ClaimCaseRequest, context: object) -> case_pb2.Case:
        """Takes a case."""
        return await self._review.claim(request)

    async def ReleaseCase(self, request: case_pb2.ReleaseCaseRequest, context: object) -> case_pb2.Case:
        """Gives a case back."""
        return await self._review.release(request)

    async def DecideCase(self, request: case_pb2.DecideCaseRequest, context: object) -> case_pb2.Case:
        """Says what a case is."""
        return await self._review.decide(request)

    async def BulkDecideCases(
        self, request: case_pb2.BulkDecideCasesRequest, context: object
    ) -> case_pb2.BulkDecideCasesResponse:
        """Says what many cases are."""
        return await self._review.decide_many(request)

    async def ActOnCase(self, request: case_pb2.ActOnCaseRequest, context: object) -> case_pb2.CaseAction:
        """Does something about a case."""
        return await self._review.act(request)

    async def ApproveCaseAction(
        self, request: case_pb2.ApproveCaseActionRequest, context: object
    ) -> case_pb2.CaseAction:
        """Agrees to an action."""
        return await self._review.approve(request)

    async def UndoCaseAction(self, request: case_pb2.UndoCaseActionRequest, context: object) -> case_pb2.CaseAction:
        """Takes an action back."""
        return await self._review.undo(request)

    async def GetAbuseStatistics(
        self, request: case_pb2.GetAbuseStatisticsRequest, context: object
    ) -> case_pb2.AbuseStatistics:
        """Counts."""
        return await self._review.statistics(request)


class PlatformCaseServicer(case_pb2_grpc.PlatformCaseServiceServicer):
    """Cases of the platform."""

    def __init__(self, cases: Cases, actions: CaseActions) -> None:
        self._review = _Review(cases, actions)

    async def ListPlatformCases(
        self, request: case_pb2.ListCasesRequest, context: object
    ) -> case_pb2.ListCasesResponse:
        """Lists cases."""
        return await self._review.list(request)

    async def GetPlatformCase(self, request: case_pb2.GetCaseRequest, context: object) -> case_pb2.CaseDetail:
        """Returns one case."""
        return await self._review.get(request)

    async def ClaimPlatformCase(self, request: case_pb2.ClaimCaseRequest, context: object) -> case_pb2.Case:
        """Takes a case."""
        return await self._review.claim(request)

    async def ReleasePlatformCase(self, request: case_pb2.ReleaseCaseRequest, context: object) -> case_pb2.Case:
        """Gives a case back."""
        return await self._review.release(request)

    async def DecidePlatformCase(self, request: case_pb2.DecideCaseRequest, context: object) -> case_pb2.Case:
        """Says what a case is."""
        return await self._review.decide(request)

    async def BulkDecidePlatformCases(
        self, request: case_pb2.BulkDecideCasesRequest, context: object
    ) -> case_pb2.BulkDecideCasesResponse:
        """Says what many cases are."""
        return await self._review.decide_many(request)

    async def ActOnPlatformCase(self, request: case_pb2.ActOnCaseRequest, context: object) -> case_pb2.CaseAction:
        """Does something about a case."""
        return await self._review.act(request)

    async def ApprovePlatformCaseAction(
        self, request: case_pb2.ApproveCaseActionRequest, context: object
    ) -> case_pb2.CaseAction:
        """Agrees to an action."""
        return await self._review.approve(request)

    async def UndoPlatformCaseAction(
        self, request: case_pb2.UndoCaseActionRequest, context: object
    ) -> case_pb2.CaseAction:
        """Takes an action back."""
        return await self._review.undo(request)

    async def GetPlatformAbuseStatistics(
        self, request: case_pb2.GetAbuseStatisticsRequest, context: object
    ) -> case_pb2.AbuseStatistics:
        """Counts."""
        return await self._review.statistics(request)
