"""Owns gatefold.abuse.v1.TelemetryService at the wire."""

import asyncio
from concurrent.futures import Executor

from gatefold.abuse.v1 import otlp_pb2, otlp_pb2_grpc
from google.api import httpbody_pb2

from libs.caller import current
from services.abuse.usecases import log_records
from services.abuse.usecases.allowances import Allowances
from services.abuse.usecases.intake import Intake
from services.abuse.usecases.log_records import LogRecords


class TelemetryServicer(otlp_pb2_grpc.TelemetryServiceServicer):
    """Logs of publishers' own sites."""

    def __init__(self, records: LogRecords, intake: Intake, allowances: Allowances, executor: Executor) -> None:
        """`executor` reads exports: a large one takes half a second, for which nobody else is to wait."""
        self._records = records
        self._intake = intake
        self._allowances = allowances
        self._executor = executor

    async def ExportLogs(self, request: otlp_pb2.ExportLogsRequest, context: object) -> httpbody_pb2.HttpBody:
        """Takes an export."""
        account, payload = current().require_account(), request.payload
        kind = payload.content_type
        with self._allowances.export(account, len(payload.data)) as counted:
            activities, rejected = await asyncio.get_running_loop().run_in_executor(
                self._executor, self._records.read, account, kind, payload.data
            )
            counted(len(activities) + rejected)
            await self._intake.take(activities)
        return httpbody_pb2.HttpBody(content_type=log_records.media_type(kind), data=log_records.answer(rejected, kind))
