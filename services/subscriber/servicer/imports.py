"""Owns gatefold.subscriber.v1.ImportService at the wire."""

from gatefold.subscriber.v1 import import_pb2, import_pb2_grpc

from libs import ids
from services.subscriber.usecases import present
from services.subscriber.usecases.imports import Imports


class ImportServicer(import_pb2_grpc.ImportServiceServicer):
    """Bringing readers over from another system."""

    def __init__(self, imports: Imports) -> None:
        self._imports = imports

    async def CreateImport(self, request: import_pb2.CreateImportRequest, context: object) -> import_pb2.Import:
        """Takes a file in."""
        file = request.file
        job = await self._imports.create_import(file.data, file.content_type, request.complimentary_feature, request)
        return present.import_job(job)

    async def GetImport(self, request: import_pb2.GetImportRequest, context: object) -> import_pb2.Import:
        """Shows how far an import is."""
        return present.import_job(await self._imports.get_import(ids.decode("imp", request.id)))

    async def ListImportProblems(
        self, request: import_pb2.ListImportProblemsRequest, context: object
    ) -> import_pb2.ListImportProblemsResponse:
        """Lists what was not taken."""
        problems, next_cursor = await self._imports.list_import_problems(
            ids.decode("imp", request.id), request.limit, request.cursor
        )
        return import_pb2.ListImportProblemsResponse(
            data=[present.problem(problem) for problem in problems], next_cursor=next_cursor
        )
