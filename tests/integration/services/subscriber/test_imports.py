"""Imports on a real database: the numbers add up, nobody is doubled, files are sealed and go."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from gatefold.subscriber.v1 import entitlement_pb2, import_pb2, subscriber_pb2
from google.api import httpbody_pb2

from libs import ids
from libs.errors import GatefoldError, Kind

from .conftest import House

DATA = Path(__file__).resolve().parents[3] / "data"
HEADER = "email,name,note,subscribed_to_emails,complimentary_plan,stripe_customer_id,created_at,labels,tiers\n"


async def hand_in(
    house: House, data: bytes | str, media_type: str = "text/csv", feature: str = ""
) -> import_pb2.Import:
    content = data.encode() if isinstance(data, str) else data
    body = httpbody_pb2.HttpBody(content_type=media_type, data=content)
    request = import_pb2.CreateImportRequest(file=body, complimentary_feature=feature)
    return await house.import_rpc.CreateImport(request, None)


async def look(house: House, import_id: str) -> import_pb2.Import:
    return await house.import_rpc.GetImport(import_pb2.GetImportRequest(id=import_id), None)


async def problems(house: House, import_id: str, limit: int = 100) -> list[tuple[int, str, str]]:
    found: list[tuple[int, str, str]] = []
    cursor = ""
    while True:
        request = import_pb2.ListImportProblemsRequest(id=import_id, limit=limit, cursor=cursor)
        page = await house.import_rpc.ListImportProblems(request, None)
        assert all(problem.detail for problem in page.data)
        found += [(problem.line, problem.reason, problem.column) for problem in page.data]
        cursor = page.next_cursor
        if not cursor:
            return found


async def find(house: House, email: str) -> subscriber_pb2.Subscriber:
    request = subscriber_pb2.ListSubscribersRequest(email=email)
    (reader,) = (await house.subscriber_rpc.ListSubscribers(request, None)).data
    return reader


def numbers(done: import_pb2.Import) -> tuple[int, ...]:
    return done.total, done.created, done.updated, done.unchanged, done.duplicates, done.refused


async def test_a_real_export_is_taken_and_every_record_accounted_for(house: House) -> None:
    expected = json.loads((DATA / "ghost_members.expected.json").read_text())
    with house.staff():
        accepted = await hand_in(house, (DATA / "ghost_members.csv").read_bytes())
        assert accepted.state == import_pb2.IMPORT_STATE_QUEUED
        await house.work_off()
        done = await look(house, accepted.id)
        assert done.state == import_pb2.IMPORT_STATE_DONE
        assert numbers(done) == (
            expected["total"],
            expected["created"],
            0,
            0,
            expected["duplicates"],
            expected["refused"],
        )
        assert done.total == sum(numbers(done)[1:])
        assert dict(done.refused_by_reason) == expected["refused_by_reason"]
        assert list(done.ignored_columns) == ["id", "deleted_at"]
        assert await problems(house, accepted.id) == [tuple(problem) for problem in expected["problems"]]
    assert await house.count("SELECT count(*) FROM subscriber") == expected["created"]
    subscribed = "SELECT count(*) FROM subscriber WHERE subscribed_to_emails"
    assert await house.count(subscribed) == expected["subscribed"]
    assert await house.count("SELECT count(*) FROM subscriber WHERE name_sealed IS NULL") == expected["unnamed"]
    assert await house.count("SELECT count(*) FROM entitlement WHERE complimentary") == expected["complimentary"]
    created = await house.events("subscriber.created")
    assert len(created) == len({aggregate for _, aggregate, _ in created}) == expected["created"]
    assert len(await house.events("entitlement.changed")) == expected["complimentary"]
    assert await house.events("import") == [("import.finished", accepted.id, 1)]


async def test_importing_the_same_file_again_changes_nothing(house: House) -> None:
    text = HEADER + "mei@example.com,Mei,note,true,true,cus_1,2020-01-01,VIP,Gold\namina@example.com,,,,,,,,\n"
    with house.staff():
        first = await hand_in(house, text)
        await house.work_off()
        before = await house.events()
        second = await hand_in(house, text)
        await house.work_off()
        assert numbers(await look(house, first.id)) == (2, 2, 0, 0, 0, 0)
        assert numbers(await look(house, second.id)) == (2, 0, 0, 2, 0, 0)
    assert await house.events() == [*before, ("import.finished", second.id, 1)]


async def test_what_a_record_says_reaches_the_profile(house: House) -> None:
    record = 'Mei@Example.com,"Mei\nTanaka-Test",=note,TRUE,1,cus_1,2020-01-31T12:00:00+01:00,"VIP, Züri",Gold\n'
    with house.staff():
        accepted = await hand_in(house, HEADER + record)
        await house.work_off()
        reader = await find(house, "mei@example.com")
        rights = await house.entitlement_rpc.ListEntitlements(
            entitlement_pb2.ListEntitlementsRequest(subscriber_id=reader.id), None
        )
        assert (await look(house, accepted.id)).created == 1
    assert (reader.email, reader.name, reader.note) == ("Mei@example.com", "Mei Tanaka-Test", "=note")
    assert (reader.subscribed_to_emails, reader.complimentary, list(reader.labels)) == (True, True, ["VIP", "Züri"])
    assert dict(reader.metadata) == {"stripe_customer_id": "cus_1", "tiers": "Gold"}
    assert reader.created_at.ToDatetime(tzinfo=UTC) == datetime(2020, 1, 31, 11, tzinfo=UTC)
    assert (reader.source, list(reader.features)) == ("import", ["premium"])
    assert [(right.feature, right.source, right.active) for right in rights.data] == [
        ("premium", "complimentary", True)
    ]


async def test_free_access_opens_the_feature_the_import_names(house: House) -> None:
    with house.staff():
        await hand_in(house, HEADER + "mei@example.com,,,,true,,,,\n", feature="archive")
        await house.work_off()
        assert list((await find(house, "mei@example.com")).features) == ["archive"]


async def test_a_known_reader_is_updated_and_never_opted_in_or_emptied(house: House) -> None:
    with house.staff():
        request = subscriber_pb2.CreateSubscriberRequest(
            email="mei@example.com", name="Mei", note="old", labels=["VIP"], metadata={"place": "7"}
        )
        known = await house.subscriber_rpc.CreateSubscriber(request, None)
        accepted = await hand_in(house, HEADER + "MEI@example.com,,new,true,true,,2001-01-01,Print,\n")
        await house.work_off()
        assert numbers(await look(house, accepted.id)) == (1, 0, 1, 0, 0, 0)
        after = await find(house, "mei@example.com")
    assert (after.id, after.email, after.name, after.note) == (known.id, "mei@example.com", "Mei", "new")
    assert after.subscribed_to_emails is False
    assert (list(after.labels), dict(after.metadata)) == (["VIP", "Print"], {"place": "7"})
    assert (after.created_at, after.source) == (known.created_at, "api")
    assert list(after.features) == ["premium"]
    assert await house.events("subscriber") == [
        ("subscriber.created", known.id, 1),
        ("subscriber.updated", known.id, 2),
    ]


async def test_an_imported_reader_keeps_their_subject_when_they_register(house: House) -> None:
    with house.staff():
        await hand_in(house, HEADER + "mei@example.com,,,,,,,,\n")
        await house.work_off()
        imported = await find(house, "mei@example.com")
    with house.service():
        request = subscriber_pb2.EnsureSubjectRequest(
            email="MEI@example.com", name="Mei", offered_subject_id=ids.encode("subj", house.ids.new())
        )
        answer = await house.subscriber_rpc.EnsureSubject(request, None)
    assert (answer.subject_id, answer.created) == (imported.id, False)


async def test_the_file_waits_sealed_and_goes_when_the_import_is_over(house: House, tmp_path: Path) -> None:
    def stored() -> list[Path]:
        return [path for path in (tmp_path / "objects").rglob("*") if path.is_file()]

    with house.staff():
        await hand_in(house, HEADER + "mei@example.com,Mei,,,,,,,\n")
        (file,) = stored()
        assert b"mei" not in file.read_bytes()
        assert house.woken
        await house.work_off()
    assert stored() == []
    assert await house.due() == []


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\n \n", "empty"),
        (b"name,note\nMei,x\n", "email"),
        ("email\nmei@example.com\n".encode("utf-16"), "UTF-16"),
        ("email\nmei@example.com\n".encode("utf-16-le"), "UTF-16"),
        (b"email,name\nmei@example.com,M\xfcller\n", "line 2"),
        (b'email,name\nmei@example.com,"Mei\n', "line 2"),
        (b'email,name\na@example.com,x\nmei@example.com,"M"ei\n', "line 3"),
        (b"email,Email\nx,y\n", "twice"),
    ],
)
async def test_an_unreadable_file_fails_clearly_and_nothing_is_taken_from_it(
    house: House, data: bytes, word: str
) -> None:
    with house.staff():
        accepted = await hand_in(house, data)
        await house.work_off()
        failed = await look(house, accepted.id)
    assert failed.state == import_pb2.IMPORT_STATE_FAILED
    assert word in failed.failure
    assert failed.HasField("finished_at")
    assert numbers(failed) == (0, 0, 0, 0, 0, 0)
    assert await house.events() == []
    assert await house.due() == []


async def test_a_failure_repeats_nothing_of_the_file(house: House) -> None:
    with house.staff():
        accepted = await hand_in(house, 'mei@example.com,Mei\namina@example.com,"Amina\n')
        await house.work_off()
        failure = (await look(house, accepted.id)).failure
    assert "mei" not in failure.lower()
    assert "amina" not in failure.lower()


async def test_a_file_without_records_is_done_at_once(house: House) -> None:
    with house.staff():
        accepted = await hand_in(house, HEADER)
        await house.work_off()
        done = await look(house, accepted.id)
    assert (done.state, numbers(done)) == (import_pb2.IMPORT_STATE_DONE, (0, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("data", "media_type", "kind"),
    [
        (b"", "text/csv", Kind.INVALID),
        (b"email\n", "application/json", Kind.UNSUPPORTED_MEDIA),
        (b"email\n" + b"a" * (14 * 1024 * 1024), "text/csv; charset=utf-8", Kind.TOO_LARGE),
    ],
)
async def test_what_is_no_file_of_members_is_not_taken_in(
    house: House, data: bytes, media_type: str, kind: Kind
) -> None:
    with house.staff(), pytest.raises(GatefoldError) as raised:
        await hand_in(house, data, media_type)
    assert raised.value.kind is kind
    assert await house.count("SELECT count(*) FROM import_job") == 0


async def test_handing_in_twice_under_one_key_imports_once(house: House) -> None:
    text = HEADER + "mei@example.com,,,,,,,,\n"
    with house.staff("key-1"):
        first = await hand_in(house, text)
        assert await hand_in(house, text) == first
        await house.work_off()
        assert (await hand_in(house, text)).state == import_pb2.IMPORT_STATE_DONE
    assert await house.count("SELECT count(*) FROM import_job") == 1


async def test_problems_come_in_pages_by_line(house: House) -> None:
    text = "email\n" + "".join(f"nobody{number}\n" for number in range(25))
    with house.staff():
        accepted = await hand_in(house, text)
        await house.work_off()
        found = await problems(house, accepted.id, limit=10)
    assert found == [(line, "email_invalid", "email") for line in range(2, 27)]


async def test_a_file_that_never_arrived_fails_when_its_time_is_up(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(house.store, "put", broken)
    with house.staff():
        with pytest.raises(ConnectionError):
            await hand_in(house, HEADER)
        (item,) = await house.due()
        assert item.due_at == house.clock.wall() + timedelta(minutes=15)
        await house.work_off()
        failed = await look(house, ids.encode("imp", item.reference))
    assert failed.state == import_pb2.IMPORT_STATE_FAILED
    assert "arrive" in failed.failure


async def test_a_file_that_arrives_after_its_import_was_given_up_is_not_kept(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put = house.store.put

    async def late(key: str, data: bytes) -> None:
        await house.work_off()
        await put(key, data)

    monkeypatch.setattr(house.store, "put", late)
    with house.staff():
        assert (await hand_in(house, HEADER)).state == import_pb2.IMPORT_STATE_FAILED
    assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file()] == []


async def test_a_broken_off_hand_in_goes_on_under_its_key(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise ConnectionError

    text = HEADER + "mei@example.com,,,,,,,,\n"
    with house.staff("key-1"):
        with monkeypatch.context() as patched:
            patched.setattr(house.store, "put", broken)
            with pytest.raises(ConnectionError):
                await hand_in(house, text)
        (item,) = await house.due()
        house.clock.advance(timedelta(minutes=2))
        again = await hand_in(house, text)
        assert again.id == ids.encode("imp", item.reference)
        await house.work_off()
        assert (await look(house, again.id)).created == 1
    assert await house.count("SELECT count(*) FROM import_job") == 1


async def test_the_database_refuses_counts_that_do_not_add_up(house: House) -> None:
    with house.staff():
        await hand_in(house, HEADER + "mei@example.com,,,,,,,,\n")
        await house.work_off()
    for change in ("created = 2", "created = 0", "total = 2", "refused = -1", "state = 'failed'", "finished_at = NULL"):
        with pytest.raises(Exception, match="violates check constraint"):
            async with house.app.tenant(house.account, "tamper") as conn:
                await conn.execute(f"UPDATE import_job SET {change}")
