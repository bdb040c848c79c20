"""Owns handing in a member file and looking at what became of it."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from gatefold.subscriber.v1 import import_pb2
from google.protobuf.message import Message

from libs import caller, due, errors, idempotency, ids
from libs.clock import Clock
from libs.postgres import Database
from services.subscriber.domain import cursor, entitlement
from services.subscriber.domain.import_job import DEFAULT_COMPLIMENTARY_FEATURE, Counts, ImportJob
from services.subscriber.domain.member_file import MOST_BYTES
from services.subscriber.domain.member_record import Problem
from services.subscriber.repository import imports
from services.subscriber.usecases.files import ImportFiles

DUE_KIND = "import"

RECEIVING = timedelta(minutes=15)
"""How long a file may be on its way to the object store before the import counts as broken off."""

STORING_SECONDS = 60
"""How long a repetition under the same key is held off while the first is storing the file."""

_MEDIA_TYPES = frozenset({"text/csv", "application/csv", "application/vnd.ms-excel", "application/octet-stream", ""})


class Imports:
    """The account's imports."""

    def __init__(
        self, db: Database, files: ImportFiles, clock: Clock, id_source: ids.IdSource, wake: Callable[[], None]
    ) -> None:
        self._db = db
        self._files = files
        self._clock = clock
        self._ids = id_source
        self._wake = wake

    async def create_import(self, data: bytes, media_type: str, feature: str, request: Message) -> ImportJob:
        """Takes a file in and makes it due at once.

        Reserved, stored (sealed), recorded: what a crash leaves is found by its due time. Raises
        `invalid("file_empty")`, `too_large("file_too_large")` and `unsupported_media("media_type_unsupported")`.
        """
        who = caller.current()
        account = who.require_account()
        _check(data, media_type)
        feature = entitlement.checked_feature(feature or DEFAULT_COMPLIMENTARY_FEATURE)
        now = self._clock.now(account)
        job = ImportJob(self._ids.new(), "receiving", 0, Counts(), (), feature, "", now, None)
        async with self._db.tenant(account, "reserve_import") as conn:
            claim = await idempotency.claim(
                conn,
                who,
                "CreateImport",
                request,
                clock=self._clock,
                reference=job.id,
                lease_seconds=STORING_SECONDS,
            )
            if claim.replay is not None:
                reserved = ids.decode("imp", import_pb2.Import.FromString(claim.replay).id)
            elif claim.reference is not None:
                # An earlier attempt reserved this import and did not get to its end.
                reserved = claim.reference
            else:
                await imports.insert(conn, account, job, live=who.live)
                await due.schedule(conn, account, DUE_KIND, job.id, now + RECEIVING)
                reserved = job.id
        if claim.replay is None:
            await self._files.put(account, reserved, data)
            async with self._db.tenant(account, "create_import") as conn:
                stored = await imports.lock(conn, account, reserved)
                # Whatever is no longer waiting for its file has been taken up, or given up, by a worker.
                if stored is not None and stored.job.state == "receiving":
                    await imports.queue(conn, account, reserved)
                    await due.schedule(conn, account, DUE_KIND, reserved, self._clock.now(account))
                await idempotency.record(conn, who, "CreateImport", import_pb2.Import(id=ids.encode("imp", reserved)))
            if stored is None or stored.job.finished_at is not None:
                # The import was over before its file was there: nobody else would delete it.
                await self._files.delete(account, reserved)
            self._wake()
        return await self.get_import(reserved)

    async def get_import(self, import_id: UUID) -> ImportJob:
        """Returns an import; raises `not_found("import_not_found")`."""
        account = caller.current().require_account()
        async with self._db.tenant(account, "get_import", read_only=True) as conn:
            stored = await imports.find(conn, account, import_id)
        if stored is None:
            raise _not_found()
        return stored.job

    async def list_import_problems(self, import_id: UUID, limit: int, after: str) -> tuple[list[Problem], str]:
        """Returns a page of the records that were not taken, by line, and the cursor of the next page."""
        account = caller.current().require_account()
        size = cursor.page_limit(limit)
        line = cursor.read_line(after)
        async with self._db.tenant(account, "list_import_problems", read_only=True) as conn:
            if await imports.find(conn, account, import_id) is None:
                raise _not_found()
            found = await imports.problems_page(conn, account, import_id, line, size + 1)
        return found[:size], cursor.after_line(found[size - 1].line) if len(found) > size else ""


def _check(data: bytes, media_type: str) -> None:
    if media_type.partition(";")[0].strip().lower() not in _MEDIA_TYPES:
        raise errors.unsupported_media("media_type_unsupported", "Send the file as text/csv.")
    if not data:
        raise errors.invalid("file_empty", "The file is empty.", field="file")
    if len(data) > MOST_BYTES:
        raise errors.too_large("file_too_large", f"A file has at most {MOST_BYTES:,} bytes; split it into several.")


def _not_found() -> errors.GatefoldError:
    return errors.not_found("import_not_found", "There is no such import.")
