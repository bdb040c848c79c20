"""Serves gatefold.privacy.v1.SubjectData for any service, from the marks on its columns."""

from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import grpc
from gatefold.privacy.v1 import subject_data_pb2, subject_data_pb2_grpc

from libs import caller, errors, ids
from libs.clock import WallClock
from libs.postgres import Database
from libs.privacy import catalogue, erasure
from libs.privacy.export import Export
from libs.privacy.subject_table import SubjectTable
from libs.vault import Vault

Context = grpc.aio.ServicerContext[Any, Any]

_DISPOSITIONS = {
    "delete": subject_data_pb2.DISPOSITION_DELETE,
    "anonymise": subject_data_pb2.DISPOSITION_ANONYMISE,
    "retain": subject_data_pb2.DISPOSITION_RETAIN,
}


class SubjectDataServicer(subject_data_pb2_grpc.SubjectDataServicer):
    """The privacy port of one service. `owns_keys` is set by the one service that destroys a subject's profile key."""

    def __init__(
        self,
        service: str,
        app_db: Database,
        vault: Vault,
        tables: Sequence[SubjectTable],
        *,
        clock: WallClock,
        owns_keys: bool = False,
    ) -> None:
        self._service = service
        self._db = app_db
        self._vault = vault
        self._tables = tuple(tables)
        self._clock = clock
        self._owns_keys = owns_keys

    async def check(self) -> None:
        """Returns when all personal data of the schema is accounted for; a service awaits it before it serves.

        Raises MarkError naming every column that is not.
        """
        async with self._db.transaction("check_marks", read_only=True) as conn:
            await catalogue.check(conn, self._service, self._tables)

    async def Describe(
        self, request: subject_data_pb2.DescribeRequest, context: Context
    ) -> subject_data_pb2.DescribeResponse:
        """Lists the columns that are marked as personal data."""
        async with self._db.transaction("describe", read_only=True) as conn:
            held = await catalogue.columns(conn)
        return subject_data_pb2.DescribeResponse(
            service=self._service,
            columns=[
                subject_data_pb2.Column(
                    table=column.table,
                    column=column.name,
                    category=column.mark.category,
                    basis=column.mark.basis,
                    retention=column.mark.retention,
                    sealed=column.mark.sealed,
                )
                for table in held.values()
                for column in table
                if column.mark is not None and column.mark.personal
            ],
        )

    async def Export(
        self, request: subject_data_pb2.ExportRequest, context: Context
    ) -> AsyncIterator[subject_data_pb2.ExportResponse]:
        """Streams the subject's rows as JSON lines, decrypted."""
        account, subject = _whose(request.subject_id)
        export = Export(self._service, self._db, self._vault, self._tables, account, subject)
        async for part in export.parts():
            yield subject_data_pb2.ExportResponse(
                table=part.table, schema_version=part.schema_version, json_lines=part.json_lines, sha256=part.sha256
            )

    async def PlanErase(
        self, request: subject_data_pb2.PlanEraseRequest, context: Context
    ) -> subject_data_pb2.PlanEraseResponse:
        """Says what Erase would do now."""
        account, subject = _whose(request.subject_id)
        async with self._db.tenant(account, "plan_erase", read_only=True) as conn:
            planned = await erasure.plan(conn, account, subject, self._tables)
        return subject_data_pb2.PlanEraseResponse(tables=_listed(planned), plan_hash=erasure.plan_hash(planned))

    async def Erase(self, request: subject_data_pb2.EraseRequest, context: Context) -> subject_data_pb2.EraseResponse:
        """Erases, and then destroys the key; precondition("plan_changed") when another plan was agreed to.

        Repeating it answers the first receipt, and destroys the key should a crash have come in between.
        """
        account, subject = _whose(request.subject_id)
        sign = await self._vault.signer(account, f"erasure-receipt/{self._service}")
        at = self._clock.wall()
        async with self._db.tenant(account, "erase_subject") as conn:
            await erasure.place_tombstone(conn, account, subject, at)
            receipt = await erasure.receipt(conn, account, subject)
            if receipt is None:
                held = await catalogue.columns(conn)
                planned = await erasure.plan(conn, account, subject, self._tables)
                if erasure.plan_hash(planned) != request.plan_hash:
                    raise errors.precondition("plan_changed", "What would be erased has changed; plan again.")
                await erasure.carry_out(conn, account, subject, planned, held)
                response = subject_data_pb2.EraseResponse(service=self._service, tables=_listed(planned))
                response.erased_at.FromDatetime(at)
                response.signature = sign(response.SerializeToString(deterministic=True))
                receipt = response.SerializeToString(deterministic=True)
                await erasure.store_receipt(conn, account, subject, receipt, at)
        if self._owns_keys:
            await self._vault.destroy(account, subject, "profile")
        return subject_data_pb2.EraseResponse.FromString(receipt)

    async def Verify(
        self, request: subject_data_pb2.VerifyRequest, context: Context
    ) -> subject_data_pb2.VerifyResponse:
        """Counts what is left: rows, values, a missing tombstone and a key that still opens."""
        account, subject = _whose(request.subject_id)
        async with self._db.tenant(account, "verify_erasure", read_only=True) as conn:
            held = await catalogue.columns(conn)
            residual, retained = await erasure.residue(conn, account, subject, self._tables, held)
            residual += not await erasure.has_tombstone(conn, account, subject)
        if self._owns_keys:
            residual += not await self._vault.is_destroyed(account, subject, "profile")
        return subject_data_pb2.VerifyResponse(residual=residual, retained=retained)


def _whose(subject_id: str) -> tuple[UUID, UUID]:
    return caller.current().require_account(), ids.decode("subj", subject_id, field="subject_id")


def _listed(planned: Sequence[erasure.Planned]) -> list[subject_data_pb2.PlannedTable]:
    listed = []
    for one in planned:
        entry = subject_data_pb2.PlannedTable(
            table=one.table.name,
            disposition=_DISPOSITIONS[one.table.erase],
            rows=one.rows,
            reason=one.table.retain_reason,
        )
        if one.until is not None:
            entry.until.FromDatetime(one.until)
        listed.append(entry)
    return listed
