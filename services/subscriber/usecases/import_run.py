"""Owns working an import off: opened once, taken in chunks, resumable at every point, its file deleted at the end."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from uuid import UUID

from libs import caller, due, errors, ids, outbox
from libs.clock import Clock
from libs.due import Due
from libs.errors import GatefoldError, Kind
from libs.postgres import Connection, Database
from services.subscriber.domain import member_file, member_record
from services.subscriber.domain.import_job import MOST_PROBLEMS, Counts, ImportJob
from services.subscriber.domain.member_file import MemberFile, UnreadableFileError
from services.subscriber.domain.member_record import Outcome, Problem
from services.subscriber.repository import imports
from services.subscriber.repository.imports import StoredImport
from services.subscriber.usecases import addresses
from services.subscriber.usecases.facts import Facts
from services.subscriber.usecases.files import ImportFiles
from services.subscriber.usecases.import_chunk import ChunkWriter
from services.subscriber.usecases.imports import DUE_KIND

CHUNK_RECORDS = 500
CHUNK_ATTEMPTS = 2
SLICE_SECONDS = 20.0
"""How long one claim works before it hands the import back, so that other accounts have their turn."""


class OvertakenError(Exception):
    """Another worker is at the same import; this one leaves it alone."""


class ImportRun:
    """Works imports off; the handler of the due queue's `import` rows. Bears running twice, also at the same time.

    It asks `stopping` after each chunk and hands the import back as soon as the service is to end.
    """

    def __init__(
        self,
        db: Database,
        files: ImportFiles,
        writer: ChunkWriter,
        clock: Clock,
        facts: Facts,
        *,
        stopping: Callable[[], bool] = lambda: False,
        chunk_records: int = CHUNK_RECORDS,
        slice_seconds: float = SLICE_SECONDS,
    ) -> None:
        self._db = db
        self._files = files
        self._writer = writer
        self._clock = clock
        self._facts = facts
        self._stopping = stopping
        self._chunk_records = chunk_records
        self._slice_seconds = slice_seconds

    async def work(self, item: Due) -> None:
        """Brings an import as far as one slice allows; what is left is due again at once."""
        account = item.account
        async with self._db.tenant(account, "find_import") as conn:
            stored = await imports.find(conn, account, item.reference)
        if stored is not None:
            service = caller.service_caller(
                "subscriber", account, live=stored.live, request_id=ids.encode("imp", item.reference)
            )
            with caller.serving(service):
                try:
                    over = await self._advance(account, stored)
                except OvertakenError:
                    return
            if not over:
                return
            await self._files.delete(account, item.reference)
        async with self._db.tenant(account, "end_import") as conn:
            await due.finish(conn, item)

    async def _advance(self, account: UUID, stored: StoredImport) -> bool:
        """Returns whether the import is over."""
        job = stored.job
        if job.state in ("done", "failed"):
            return True
        if job.state == "receiving":
            await self._fail(account, job.id, "The file did not arrive completely; hand it in again.")
            return True
        try:
            data = await self._files.get(account, job.id)
            file = await asyncio.to_thread(member_file.opened, data)
        except UnreadableFileError as error:
            await self._fail(account, job.id, error.detail)
            return True
        except GatefoldError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            await self._fail(account, job.id, "The file is no longer there; hand it in again.")
            return True
        job = await self._begin(account, job.id, file)
        return job.state == "done" or await self._take_chunks(account, job, file)

    async def _take_chunks(self, account: UUID, job: ImportJob, file: MemberFile) -> bool:
        outcomes = member_record.read(file, addresses.spelled, job.created_at)
        # What was looked at before is read again, without effect: later duplicates are told by it.
        await asyncio.to_thread(_next, outcomes, job.counts.looked_at)
        ends = time.monotonic() + self._slice_seconds
        while job.state == "running":
            chunk = await asyncio.to_thread(_next, outcomes, self._chunk_records)
            job = await self._take_again(account, job, chunk)
            if job.state == "running" and (time.monotonic() >= ends or self._stopping()):
                async with self._db.tenant(account, "hand_back_import") as conn:
                    await due.schedule(conn, account, DUE_KIND, job.id, self._clock.now(account))
                return False
        return True

    async def _take_again(self, account: UUID, job: ImportJob, chunk: list[Outcome]) -> ImportJob:
        """Takes a chunk, in ever smaller parts when readers in it are added or changed at the same moment."""
        for _ in range(CHUNK_ATTEMPTS):
            try:
                return await self._take(account, job, chunk)
            except GatefoldError as error:
                if error.reason != "concurrent_change":
                    raise
        if len(chunk) == 1:
            raise errors.conflict("concurrent_change", "A reader of the file keeps changing; the import goes on later.")
        half = len(chunk) // 2
        job = await self._take_again(account, job, chunk[:half])
        return await self._take_again(account, job, chunk[half:])

    async def _take(self, account: UUID, job: ImportJob, chunk: list[Outcome]) -> ImportJob:
        """Takes one chunk and counts it, in one transaction."""
        written = await self._writer.prepare(account, job, chunk)
        async with self._db.tenant(account, "import_chunk") as conn:
            stored = await self._still_at(conn, account, job)
            counts = await written.apply(conn)
            kept = job.counts.duplicates + job.counts.refused
            problems = [outcome for outcome in chunk if isinstance(outcome, Problem)]
            if problems and kept < MOST_PROBLEMS:
                await imports.insert_problems(conn, account, job.id, problems[: MOST_PROBLEMS - kept])
            after = job.advanced(counts, self._clock.now(account))
            await self._update(conn, account, after, stored.sequence)
        return after

    async def _begin(self, account: UUID, import_id: UUID, file: MemberFile) -> ImportJob:
        """Writes down what the file holds, at the first look at it; returns how far the import is."""
        async with self._db.tenant(account, "begin_import") as conn:
            stored = await imports.lock(conn, account, import_id)
            if stored is None or stored.job.state not in ("queued", "running"):
                raise OvertakenError
            if stored.job.state == "running":
                return stored.job
            begun = replace(stored.job, state="running", total=file.total, ignored_columns=file.ignored)
            begun = begun.advanced(Counts(), self._clock.now(account))
            await self._update(conn, account, begun, stored.sequence)
        return begun

    async def _fail(self, account: UUID, import_id: UUID, failure: str) -> None:
        async with self._db.tenant(account, "fail_import") as conn:
            stored = await imports.lock(conn, account, import_id)
            if stored is None or stored.job.finished_at is not None:
                raise OvertakenError
            failed = replace(stored.job, state="failed", failure=failure, finished_at=self._clock.now(account))
            await imports.update(conn, account, failed, stored.sequence)

    async def _still_at(self, conn: Connection, account: UUID, job: ImportJob) -> StoredImport:
        stored = await imports.lock(conn, account, job.id)
        if stored is None or stored.job != job:
            raise OvertakenError
        return stored

    async def _update(self, conn: Connection, account: UUID, job: ImportJob, sequence: int) -> None:
        done = job.state == "done"
        await imports.update(conn, account, job, sequence + 1 if done else sequence)
        if done:
            await outbox.append(conn, event=self._facts.import_finished(account, job, sequence + 1))


def _next(outcomes: Iterator[Outcome], count: int) -> list[Outcome]:
    return list(islice(outcomes, count))
