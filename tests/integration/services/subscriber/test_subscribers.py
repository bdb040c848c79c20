"""Readers on a real database: sealed at rest, one subject an address, pages without gaps, gapless events."""

import asyncio
import random
from datetime import timedelta
from pathlib import Path

import pytest
from gatefold.subscriber.v1 import subscriber_pb2

from libs import ids
from libs.config import Secret
from libs.errors import GatefoldError, Kind
from libs.telemetry import Telemetry
from libs.vault import Vault, VaultConfig
from services.subscriber.servicer import SubscriberServicer
from services.subscriber.usecases.subscribers import Subscribers

from .conftest import House

PERSONAL = ("Mei Tanaka-Test", "mei@example.com", "likes puzzles", "shelf 7")


async def add(house: House, email: str = "mei@example.com", **fields: object) -> subscriber_pb2.Subscriber:
    request = subscriber_pb2.CreateSubscriberRequest(email=email, **fields)
    return await house.subscriber_rpc.CreateSubscriber(request, None)


async def get(house: House, subject: str) -> subscriber_pb2.Subscriber:
    return await house.subscriber_rpc.GetSubscriber(subscriber_pb2.GetSubscriberRequest(id=subject), None)


async def test_a_reader_comes_back_as_they_were_added(house: House) -> None:
    with house.staff():
        added = await add(
            house,
            name="  Mei \n Tanaka-Test ",
            note="likes puzzles",
            subscribed_to_emails=True,
            labels=["VIP", "VIP", "Züri"],
            external_id="crm-7",
            metadata={"place": "shelf 7"},
        )
        assert await get(house, added.id) == added
    assert (added.email, added.name, added.note) == ("mei@example.com", "Mei Tanaka-Test", "likes puzzles")
    assert (list(added.labels), added.external_id, dict(added.metadata)) == (
        ["VIP", "Züri"],
        "crm-7",
        {"place": "shelf 7"},
    )
    assert (added.source, added.complimentary, list(added.features)) == ("api", False, [])
    assert added.created_at.ToDatetime() == house.clock.wall().replace(tzinfo=None)


async def test_nothing_personal_is_stored_in_the_clear(house: House) -> None:
    with house.staff("key-1"):
        await add(house, name=PERSONAL[0], note=PERSONAL[2], metadata={"place": PERSONAL[3]})
    async with house.app.tenant(house.account, "dump") as conn:
        rows = await conn.fetch("SELECT subscriber::text AS text FROM subscriber")
        kept = await conn.fetch("SELECT idempotency_key::text AS text FROM idempotency_key")
    async with house.jobs.transaction("dump") as jobs:
        sent = await jobs.fetch(
            "SELECT encode(envelope, 'escape') AS text FROM outbox WHERE account_id = $1", house.account
        )
    assert len(rows) == len(kept) == len(sent) == 1
    for row in (*rows, *kept, *sent):
        for text in PERSONAL:
            assert text not in row["text"]
            assert text.encode().hex() not in row["text"]


async def test_an_address_belongs_to_one_reader_whatever_its_letter_case(house: House) -> None:
    with house.staff():
        await add(house, "Mei@Example.com")
        with pytest.raises(GatefoldError) as raised:
            await add(house, "MEI@example.COM")
    assert (raised.value.kind, raised.value.reason) == (Kind.CONFLICT, "subscriber_exists")
    assert await house.count("SELECT count(*) FROM subscriber") == 1


async def test_an_external_id_is_unique(house: House) -> None:
    with house.staff():
        await add(house, external_id="crm-7")
        with pytest.raises(GatefoldError) as raised:
            await add(house, "other@example.com", external_id="crm-7")
    assert raised.value.reason == "external_id_taken"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"email": "nobody"}, "email_invalid"),
        ({"email": ""}, "email_invalid"),
        ({"name": "a" * 201}, "too_long"),
        ({"note": "a" * 2001}, "too_long"),
        ({"labels": [str(number) for number in range(51)]}, "labels_too_many"),
        ({"labels": ["a\0b"]}, "character_invalid"),
        ({"external_id": "a" * 121}, "too_long"),
        ({"metadata": {str(number): "" for number in range(51)}}, "metadata_too_many"),
    ],
)
async def test_bad_fields_are_refused(house: House, fields: dict[str, object], reason: str) -> None:
    with house.staff(), pytest.raises(GatefoldError) as raised:
        await add(house, **{"email": "mei@example.com", **fields})
    assert (raised.value.kind, raised.value.reason) == (Kind.INVALID, reason)
    assert await house.count("SELECT count(*) FROM subscriber") == 0


async def test_a_repeated_creation_answers_the_same_reader_and_adds_none(house: House) -> None:
    with house.staff("key-1"):
        first = await add(house, name="Mei")
        assert await add(house, name="Mei") == first
        with pytest.raises(GatefoldError) as raised:
            await add(house, name="Other")
    assert raised.value.reason == "idempotency_key_reused"
    assert await house.events() == [("subscriber.created", first.id, 1)]


async def test_changes_are_numbered_without_gaps_and_no_change_makes_no_event(house: House) -> None:
    with house.staff():
        added = await add(house, name="Mei", note="old")
        request = subscriber_pb2.UpdateSubscriberRequest(id=added.id, note="new", subscribed_to_emails=True)
        changed = await house.subscriber_rpc.UpdateSubscriber(request, None)
        assert (changed.name, changed.note, changed.subscribed_to_emails) == ("Mei", "new", True)
        assert await house.subscriber_rpc.UpdateSubscriber(request, None) == changed
        emptied = subscriber_pb2.UpdateSubscriberRequest(id=added.id, note="")
        assert (await house.subscriber_rpc.UpdateSubscriber(emptied, None)).note == ""
    assert await house.events() == [
        ("subscriber.created", added.id, 1),
        ("subscriber.updated", added.id, 2),
        ("subscriber.updated", added.id, 3),
    ]


async def test_concurrent_changes_of_one_reader_are_all_kept(house: House) -> None:
    with house.staff():
        added = await add(house)
        requests = [
            subscriber_pb2.UpdateSubscriberRequest(id=added.id, name="Mei"),
            subscriber_pb2.UpdateSubscriberRequest(id=added.id, note="new"),
            subscriber_pb2.UpdateSubscriberRequest(id=added.id, subscribed_to_emails=True),
        ]
        await asyncio.gather(*(house.subscriber_rpc.UpdateSubscriber(request, None) for request in requests))
        after = await get(house, added.id)
    assert (after.name, after.note, after.subscribed_to_emails) == ("Mei", "new", True)
    assert [sequence for _, _, sequence in await house.events()] == [1, 2, 3, 4]


async def test_the_list_shows_each_reader_exactly_once_while_others_are_added(house: House) -> None:
    chance = random.Random(4)
    with house.staff():
        before = set()
        for number in range(45):
            # Readers of the same moment as well: the subject decides their order.
            house.clock.advance(timedelta(seconds=chance.choice((0, 0, 1))))
            before.add((await add(house, f"r{number}@example.com")).id)
        seen: list[str] = []
        cursor = ""
        for page in range(100):
            request = subscriber_pb2.ListSubscribersRequest(limit=7, cursor=cursor)
            response = await house.subscriber_rpc.ListSubscribers(request, None)
            seen += [reader.id for reader in response.data]
            assert len(response.data) == 7 or not response.next_cursor
            house.clock.advance(timedelta(seconds=1))
            await add(house, f"late{page}@example.com")
            cursor = response.next_cursor
            if not cursor:
                break
    assert len(seen) == len(set(seen))
    assert before == set(seen)


async def test_the_list_takes_the_keys_of_a_page_in_one_go(house: House, keys_dsn: Secret, key_file: Path) -> None:
    with house.staff():
        for number in range(30):
            await add(house, f"r{number}@example.com", name=f"Reader {number}")
    # A vault that holds no key yet, and counts its transactions.
    telemetry = Telemetry("keys")
    fresh = await Vault.open(VaultConfig(keys_dsn=keys_dsn, key_file=key_file), house.clock, telemetry=telemetry)
    try:
        readers = SubscriberServicer(Subscribers(house.app, fresh, house.clock, house.ids, house.facts))
        with house.staff():
            listed = await readers.ListSubscribers(subscriber_pb2.ListSubscribersRequest(limit=30), None)
    finally:
        await fresh.close()
    assert {reader.name for reader in listed.data} == {f"Reader {number}" for number in range(30)}
    counted = [line for line in telemetry.metrics().decode().splitlines() if "read_subject_keys" in line]
    assert [line.rpartition(" ")[2] for line in counted if "_seconds_count{" in line] == ["1.0"]


async def test_the_list_finds_one_reader_by_address(house: House) -> None:
    with house.staff():
        added = await add(house, "mei@example.com")
        await add(house, "other@example.com")
        request = subscriber_pb2.ListSubscribersRequest(email="MEI@EXAMPLE.COM")
        assert [reader.id for reader in (await house.subscriber_rpc.ListSubscribers(request, None)).data] == [added.id]
        nobody = subscriber_pb2.ListSubscribersRequest(email="nobody@example.com")
        assert not (await house.subscriber_rpc.ListSubscribers(nobody, None)).data


@pytest.mark.parametrize(
    "asked", ["mei@bücher.example", "mei@xn--bcher-kva.example", "\u200bMei@XN--BCHER-kva.example "]
)
async def test_the_list_finds_an_address_however_it_is_spelled(house: House, asked: str) -> None:
    with house.staff():
        added = await add(house, "mei@xn--bcher-kva.example")
        request = subscriber_pb2.ListSubscribersRequest(email=asked)
        assert [reader.id for reader in (await house.subscriber_rpc.ListSubscribers(request, None)).data] == [added.id]


@pytest.mark.parametrize("cursor", ["x", "AAAA", "!!!!", "é", "f" + "_" * 31])
async def test_a_made_up_cursor_is_refused(house: House, cursor: str) -> None:
    request = subscriber_pb2.ListSubscribersRequest(cursor=cursor)
    with house.staff(), pytest.raises(GatefoldError) as raised:
        await house.subscriber_rpc.ListSubscribers(request, None)
    assert raised.value.reason == "cursor_malformed"


async def test_concurrent_registrations_of_an_address_agree_on_one_subject(house: House) -> None:
    def request(number: int) -> subscriber_pb2.EnsureSubjectRequest:
        offered = ids.encode("subj", house.ids.new())
        email = "Mei@example.com" if number % 2 else "mei@EXAMPLE.com"
        return subscriber_pb2.EnsureSubjectRequest(email=email, offered_subject_id=offered)

    with house.service():
        answers = await asyncio.gather(*(house.subscriber_rpc.EnsureSubject(request(n), None) for n in range(12)))
    assert len({answer.subject_id for answer in answers}) == 1
    assert sum(answer.created for answer in answers) == 1
    assert await house.events() == [("subscriber.created", answers[0].subject_id, 1)]


async def test_the_offered_subject_becomes_the_new_readers(house: House) -> None:
    offered = ids.encode("subj", house.ids.new())
    request = subscriber_pb2.EnsureSubjectRequest(email="mei@example.com", name="Mei", offered_subject_id=offered)
    with house.service():
        answer = await house.subscriber_rpc.EnsureSubject(request, None)
        found = await get(house, offered)
    assert (answer.subject_id, answer.created) == (offered, True)
    assert (found.source, found.name) == ("registration", "Mei")


async def test_a_subject_is_not_given_to_a_second_address(house: House) -> None:
    offered = ids.encode("subj", house.ids.new())
    with house.service():
        for email in ("mei@example.com", "other@example.com"):
            request = subscriber_pb2.EnsureSubjectRequest(email=email, offered_subject_id=offered)
            if email.startswith("mei"):
                await house.subscriber_rpc.EnsureSubject(request, None)
                continue
            with pytest.raises(GatefoldError) as raised:
                await house.subscriber_rpc.EnsureSubject(request, None)
    assert raised.value.reason == "subject_taken"


async def test_a_known_reader_keeps_subject_and_name(house: House) -> None:
    with house.staff():
        named = await add(house, "mei@example.com", name="Mei")
        unnamed = await add(house, "amina@example.com")
    with house.service():
        for email, reader in (("mei@example.com", named), ("amina@example.com", unnamed)):
            request = subscriber_pb2.EnsureSubjectRequest(
                email=email, name="From the form", offered_subject_id=ids.encode("subj", house.ids.new())
            )
            answer = await house.subscriber_rpc.EnsureSubject(request, None)
            assert (answer.subject_id, answer.created) == (reader.id, False)
        assert (await get(house, named.id)).name == "Mei"
        assert (await get(house, unnamed.id)).name == "From the form"


async def test_a_proven_address_becomes_the_readers_and_is_found_by_it(house: House) -> None:
    with house.staff():
        mei, other = await add(house), await add(house, "amina@example.com")
    with house.service():
        for _ in range(2):
            request = subscriber_pb2.ChangeEmailRequest(subject_id=mei.id, email="mei@new.example")
            await house.subscriber_rpc.ChangeEmail(request, None)
        assert (await get(house, mei.id)).email == "mei@new.example"
        again = subscriber_pb2.EnsureSubjectRequest(email="MEI@new.example")
        assert (await house.subscriber_rpc.EnsureSubject(again, None)).subject_id == mei.id
        with pytest.raises(GatefoldError) as taken:
            await house.subscriber_rpc.ChangeEmail(
                subscriber_pb2.ChangeEmailRequest(subject_id=mei.id, email="amina@example.com"), None
            )
        assert (taken.value.kind, taken.value.reason) == (Kind.PRECONDITION, "email_taken")
        assert (await get(house, mei.id)).email == "mei@new.example"
        assert (await get(house, other.id)).email == "amina@example.com"
        nobody = subscriber_pb2.ChangeEmailRequest(
            subject_id=ids.encode("subj", house.ids.new()), email="x@example.com"
        )
        with pytest.raises(GatefoldError):
            await house.subscriber_rpc.ChangeEmail(nobody, None)
    assert await house.events() == [
        ("subscriber.created", mei.id, 1),
        ("subscriber.created", other.id, 1),
        ("subscriber.updated", mei.id, 2),
    ]


async def test_a_reader_sees_themselves_without_what_the_staff_notes(house: House) -> None:
    with house.staff():
        added = await add(house, name="Mei", note="difficult", labels=["VIP"], metadata={"score": "3"})
    with house.reader(ids.decode("subj", added.id)):
        me = await house.subscriber_rpc.GetMe(subscriber_pb2.GetMeRequest(), None)
    assert (me.id, me.email, me.name) == (added.id, "mei@example.com", "Mei")
    assert (me.note, list(me.labels), dict(me.metadata)) == ("", [], {})


async def test_the_contact_of_a_reader_is_their_address_and_name(house: House) -> None:
    with house.staff():
        added = await add(house, name="Mei")
    with house.service("notify"):
        request = subscriber_pb2.GetContactRequest(subject_id=added.id)
        contact = await house.subscriber_rpc.GetContact(request, None)
    assert (contact.email, contact.name) == ("mei@example.com", "Mei")


async def test_an_unknown_reader_is_not_found(house: House) -> None:
    unknown = ids.encode("subj", house.ids.new())
    with house.staff():
        for call in (
            house.subscriber_rpc.GetSubscriber(subscriber_pb2.GetSubscriberRequest(id=unknown), None),
            house.subscriber_rpc.UpdateSubscriber(subscriber_pb2.UpdateSubscriberRequest(id=unknown, name="x"), None),
            house.subscriber_rpc.GetContact(subscriber_pb2.GetContactRequest(subject_id=unknown), None),
        ):
            with pytest.raises(GatefoldError) as raised:
                await call
            assert raised.value.kind is Kind.NOT_FOUND


async def test_a_sealed_value_moved_to_another_reader_does_not_open(house: House) -> None:
    with house.staff():
        first, second = await add(house, "mei@example.com"), await add(house, "amina@example.com")
        async with house.app.tenant(house.account, "swap") as conn:
            await conn.execute(
                "UPDATE subscriber SET email_sealed = (SELECT email_sealed FROM subscriber WHERE subject_id = $1)"
                " WHERE subject_id = $2",
                ids.decode("subj", first.id),
                ids.decode("subj", second.id),
            )
        with pytest.raises(GatefoldError) as raised:
            await get(house, second.id)
    assert raised.value.reason == "sealed_value_damaged"
