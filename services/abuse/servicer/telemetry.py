"""Owns gatefold.abuse.v1.TelemetryService at the wire."""

from gatefold.abuse.v1 import otlp_pb2, otlp_pb2_grpc
from google.api import httpbody_pb2

from libs.caller import current
from services.abuse.usecases import log_records
from services.abuse.usecases.intake import Intake
from services.abuse.usecases.log_records import LogRecords


class TelemetryServicer(otlp_pb2_grpc.TelemetryServiceServicer):
    """Logs of publishers' own sites."""

    def __init__(self, records: LogRecords, intake: Intake) -> None:
        self._records = records
        self._intake = intake

    async def ExportLogs(self, request: otlp_pb2.ExportLogsRequest, context: object) -> httpbody_pb2.HttpBody:
        """Takes an export."""
        kind = request.payload.content_type
        activities, rejected = self._records.read(current().require_account(), kind, request.payload.data)
        await self._intake.take(activities)
        return httpbody_pb2.HttpBody(content_type=log_records.media_type(kind), data=log_records.answer(rejected, kind))
