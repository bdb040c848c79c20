"""Imports that break off: at every commit, between slices, with two workers at once; nothing is lost or doubled."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from gatefold.subscriber.v1 import import_pb2, subscriber_pb2
from google.api import httpbody_pb2

from libs import ids
from libs.kill_points import KillPoints
from libs.postgres import Database
from services.subscriber.domain.import_job import ImportJob
from services.subscriber.domain.member_record import Outcome
from services.subscriber.usecases.import_chunk import ChunkWriter, PreparedChunk
from services.subscriber.usecases.import_run import ImportRun
from tests.conftest import ServiceDb
from tests.support.stores import role_dsn

from .conftest import House

READERS = 24


class KilledError(BaseException):
    """Stands for the end of the process: nothing after it runs."""


def die() -> None:
    raise KilledError


def members() -> str:
    lines = ["email,name,complimentary_plan"]
    for number in range(READERS):
        lines.append(f"r{number}@example.com,Reader {number},{'true' if number % 3 == 0 else ''}")
        if number % 4 == 0:
            lines.append(f"R{number}@EXAMPLE.com,again,")
        if number % 6 == 0:
            lines.append("nobody,x,")
    return "\n".join(lines) + "\n"


EXPECTED = (READERS + 6 + 4, READERS, 0, 0, 6, 4)


Opened = Callable[[KillPoints], AbstractAsyncContextManager[Database]]


@pytest.fixture
async def app_with(service_db: ServiceDb) -> Opened:
    """Opens the service's database with kill points."""
    dsn = role_dsn((await service_db("subscriber", pool_size=8)).owner_dsn, "subscriber_app")

    @asynccontextmanager
    async def open_database(points: KillPoints) -> AsyncIterator[Database]:
        database = await Database.open(dsn, service="subscriber", role="app", pool_size=2, kill_points=points)
        try:
            yield database
        finally:
            await database.close()

    return open_database


def worker(house: House, app: Database, slice_seconds: float = 60.0) -> ImportRun:
    writer = ChunkWriter(app, house.vault, house.clock, house.ids, house.facts)
    return ImportRun(app, house.files, writer, house.clock, house.facts, chunk_records=7, slice_seconds=slice_seconds)


async def hand_in(house: House, text: str | None = None) -> str:
    body = httpbody_pb2.HttpBody(content_type="text/csv", data=(text or members()).encode())
    with house.staff():
        return (await house.import_rpc.CreateImport(import_pb2.CreateImportRequest(file=body), None)).id


async def numbers(house: House, import_id: str) -> tuple[int, ...]:
    with house.staff():
        done = await house.import_rpc.GetImport(import_pb2.GetImportRequest(id=import_id), None)
    assert done.state == import_pb2.IMPORT_STATE_DONE
    return done.total, done.created, done.updated, done.unchanged, done.duplicates, done.refused


async def check(house: House, import_id: str) -> None:
    """Everything is there exactly once."""
    assert await numbers(house, import_id) == EXPECTED
    assert await house.count("SELECT count(*) FROM subscriber") == READERS
    assert await house.count("SELECT count(*) FROM import_problem") == 10
    assert await house.count("SELECT count(*) FROM entitlement") == 8
    created = await house.events("subscriber.created")
    assert len(created) == len(set(created)) == READERS
    assert len(await house.events("entitlement.changed")) == 8
    assert await house.events("import.finished") == [("import.finished", import_id, 1)]
    assert await house.due() == []


def points_of(log: Path) -> Iterator[str]:
    """The points a run passed, numbered where one was passed more than once."""
    passed: dict[str, int] = {}
    for line in log.read_text().splitlines():
        passed[line] = passed.get(line, 0) + 1
        yield f"{line}#{passed[line]}"


async def test_killed_at_any_commit_an_import_goes_on_where_it_was(
    house: House, app_with: Opened, tmp_path: Path
) -> None:
    log = tmp_path / "points"
    import_id = await hand_in(house)
    async with app_with(KillPoints("subscriber", kill_log=log)) as app:
        await house.work_off(worker(house, app))
    await check(house, import_id)
    points = list(points_of(log))
    assert len(points) >= 2 * (1 + 5 + 1)
    for point in points:
        house.account = house.ids.new()
        import_id = await hand_in(house)
        kill = KillPoints("subscriber", kill_at=point, kill_log=tmp_path / point.replace(":", "-"), die=die)
        async with app_with(kill) as app:
            with pytest.raises(KilledError):
                await house.work_off(worker(house, app))
        await house.work_off(worker(house, house.app))
        await check(house, import_id)


async def test_an_import_that_is_handed_back_after_each_chunk_comes_to_the_same(house: House) -> None:
    import_id = await hand_in(house)
    run = worker(house, house.app, slice_seconds=0.0)
    slices = 0
    while items := await house.due():
        await run.work(items[0])
        slices += 1
        house.clock.advance(timedelta(milliseconds=1))
    assert slices == 5
    await check(house, import_id)


async def test_a_service_that_is_to_end_hands_an_import_back_after_the_chunk_it_is_at(house: House) -> None:
    import_id = await hand_in(house)
    ending = False
    run = ImportRun(
        house.app, house.files, house.writer, house.clock, house.facts, stopping=lambda: ending, chunk_records=7
    )
    (item,) = await house.due()
    ending = True
    await run.work(item)
    with house.staff():
        half = await house.import_rpc.GetImport(import_pb2.GetImportRequest(id=import_id), None)
    assert half.state == import_pb2.IMPORT_STATE_RUNNING
    assert half.created + half.updated + half.unchanged + half.duplicates + half.refused == 7
    assert await house.count("SELECT count(*) FROM due WHERE leased_until IS NOT NULL") == 0, "the next may begin now"
    ending = False
    await house.work_off(run)
    await check(house, import_id)


async def test_two_workers_at_the_same_import_double_nothing(house: House) -> None:
    import_id = await hand_in(house)
    (item,) = await house.due()
    await asyncio.gather(*(worker(house, house.app).work(item) for _ in range(3)))
    await house.work_off(worker(house, house.app))
    await check(house, import_id)


class InterruptedWriter(ChunkWriter):
    """Lets something happen between the preparation of the first chunk and its transaction."""

    def __init__(self, house: House, interruption: Callable[[], Awaitable[object]]) -> None:
        super().__init__(house.app, house.vault, house.clock, house.ids, house.facts)
        self._interruption: Callable[[], Awaitable[object]] | None = interruption

    async def prepare(self, account: UUID, job: ImportJob, chunk: Sequence[Outcome]) -> PreparedChunk:
        prepared = await super().prepare(account, job, chunk)
        if self._interruption is not None:
            interruption, self._interruption = self._interruption, None
            await interruption()
        return prepared


async def interrupted(house: House, interruption: Callable[[], Awaitable[object]]) -> str:
    import_id = await hand_in(house, "email,name\na@example.com,Amina\nmei@example.com,Mei\nz@example.com,Zoë\n")
    writer = InterruptedWriter(house, interruption)
    await house.work_off(ImportRun(house.app, house.files, writer, house.clock, house.facts))
    return import_id


async def test_a_reader_who_registers_within_a_chunk_is_counted_as_known(house: House) -> None:
    offered = ids.encode("subj", house.ids.new())

    async def register() -> None:
        with house.service():
            request = subscriber_pb2.EnsureSubjectRequest(email="MEI@example.com", offered_subject_id=offered)
            assert (await house.subscriber_rpc.EnsureSubject(request, None)).created

    import_id = await interrupted(house, register)
    assert await numbers(house, import_id) == (3, 2, 1, 0, 0, 0)
    assert len(await house.events("subscriber.created")) == 3
    assert await house.events("subscriber.updated") == [("subscriber.updated", offered, 2)]


async def test_a_reader_who_is_changed_within_a_chunk_keeps_both_changes(house: House) -> None:
    with house.staff():
        known = await house.subscriber_rpc.CreateSubscriber(
            subscriber_pb2.CreateSubscriberRequest(email="mei@example.com"), None
        )

    async def change() -> None:
        with house.staff():
            request = subscriber_pb2.UpdateSubscriberRequest(id=known.id, note="meanwhile")
            await house.subscriber_rpc.UpdateSubscriber(request, None)

    import_id = await interrupted(house, change)
    assert await numbers(house, import_id) == (3, 2, 1, 0, 0, 0)
    with house.staff():
        after = await house.subscriber_rpc.GetSubscriber(subscriber_pb2.GetSubscriberRequest(id=known.id), None)
    assert (after.name, after.note) == ("Mei", "meanwhile")
    assert [sequence for _, aggregate, sequence in await house.events("subscriber") if aggregate == known.id] == [
        1,
        2,
        3,
    ]


async def test_readers_who_register_meanwhile_are_neither_doubled_nor_lost(house: House) -> None:
    import_id = await hand_in(house)

    async def register() -> None:
        with house.service():
            for number in reversed(range(READERS)):
                request = subscriber_pb2.EnsureSubjectRequest(
                    email=f"r{number}@example.com", offered_subject_id=ids.encode("subj", house.ids.new())
                )
                await house.subscriber_rpc.EnsureSubject(request, None)

    await asyncio.gather(register(), house.work_off(worker(house, house.app)))
    total, created, updated, unchanged, duplicates, refused = await numbers(house, import_id)
    assert total == created + updated + unchanged + duplicates + refused == EXPECTED[0]
    assert created + updated + unchanged == READERS
    assert await house.count("SELECT count(*) FROM subscriber") == READERS
    assert len(await house.events("subscriber.created")) == READERS


async def test_a_file_lost_from_the_store_fails_clearly(house: House) -> None:
    import_id = await hand_in(house)
    await house.files.delete(house.account, ids.decode("imp", import_id))
    await house.work_off()
    with house.staff():
        failed = await house.import_rpc.GetImport(import_pb2.GetImportRequest(id=import_id), None)
    assert failed.state == import_pb2.IMPORT_STATE_FAILED
    assert "no longer there" in failed.failure


async def test_a_file_of_another_account_does_not_open(house: House) -> None:
    import_id = ids.decode("imp", await hand_in(house))
    mine = house.account
    stolen = await house.store.get(f"imports/{mine}/{import_id}")
    house.account = UUID(int=5)
    other = ids.decode("imp", await hand_in(house))
    await house.store.put(f"imports/{house.account}/{other}", stolen)
    with pytest.raises(Exception, match="sealed_value_damaged"):
        await house.files.get(house.account, other)
