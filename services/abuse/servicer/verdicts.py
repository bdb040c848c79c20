"""Owns gatefold.abuse.v1.VerdictService and AppealService at the wire."""

from gatefold.abuse.v1 import appeal_pb2, appeal_pb2_grpc, verdict_pb2, verdict_pb2_grpc

from services.abuse.usecases.appeals import Appeals
from services.abuse.usecases.verdicts import Verdicts


class VerdictServicer(verdict_pb2_grpc.VerdictServiceServicer):
    """Verdicts, for those who act on them."""

    def __init__(self, verdicts: Verdicts) -> None:
        self._verdicts = verdicts

    async def ListVerdicts(
        self, request: verdict_pb2.ListVerdictsRequest, context: object
    ) -> verdict_pb2.ListVerdictsResponse:
        """Lists what has changed."""
        found, cursor = await self._verdicts.since(request.cursor, request.limit)
        return verdict_pb2.ListVerdictsResponse(verdicts=found, next_cursor=cursor)


class AppealServicer(appeal_pb2_grpc.AppealServiceServicer):
    """Appeals of people who were refused."""

    def __init__(self, appeals: Appeals) -> None:
        self._appeals = appeals

    async def Appeal(self, request: appeal_pb2.AppealRequest, context: object) -> appeal_pb2.AppealResponse:
        """Takes an appeal."""
        await self._appeals.appeal(request.instance)
        return appeal_pb2.AppealResponse()
