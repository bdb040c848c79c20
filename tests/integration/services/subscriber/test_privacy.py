"""The privacy port over the subscriber service: an export tells everything, an erasure leaves nothing."""

import json
from uuid import UUID

import pytest
from gatefold.privacy.v1 import subject_data_pb2
from gatefold.subscriber.v1 import import_pb2, subscriber_pb2
from google.api import httpbody_pb2

from libs import ids
from libs.errors import GatefoldError, Kind
from libs.privacy import SubjectDataServicer
from services.subscriber.__main__ import PERSONAL_TABLES

from .conftest import House


@pytest.fixture
def port(house: House) -> SubjectDataServicer:
    return SubjectDataServicer("subscriber", house.app, house.vault, PERSONAL_TABLES, clock=house.clock, owns_keys=True)


async def imported(house: House, email: str = "mei@example.com") -> UUID:
    text = f"email,name,note,complimentary_plan,labels,tiers\n{email},Mei,likes puzzles,true,VIP,Gold\n"
    body = httpbody_pb2.HttpBody(content_type="text/csv", data=text.encode())
    with house.staff():
        await house.import_rpc.CreateImport(import_pb2.CreateImportRequest(file=body), None)
        await house.work_off()
        request = subscriber_pb2.ListSubscribersRequest(email=email)
        (reader,) = (await house.subscriber_rpc.ListSubscribers(request, None)).data
    return ids.decode("subj", reader.id)


async def erase(house: House, port: SubjectDataServicer, subject: UUID) -> subject_data_pb2.EraseResponse:
    text = ids.encode("subj", subject)
    with house.service("compliance"):
        plan = await port.PlanErase(subject_data_pb2.PlanEraseRequest(subject_id=text), None)  # type: ignore[arg-type]
        request = subject_data_pb2.EraseRequest(subject_id=text, plan_hash=plan.plan_hash)
        return await port.Erase(request, None)  # type: ignore[arg-type]


async def exported(house: House, port: SubjectDataServicer, subject: UUID) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    with house.service("compliance"):
        request = subject_data_pb2.ExportRequest(subject_id=ids.encode("subj", subject))
        async for part in port.Export(request, None):  # type: ignore[arg-type]
            for line in part.json_lines.splitlines():
                document = json.loads(line)
                found.setdefault(document["table"], []).append(document["columns"])
    return found


async def test_an_export_tells_in_clear_what_is_known(house: House, port: SubjectDataServicer) -> None:
    subject = await imported(house)
    await imported(house, "other@example.com")
    found = await exported(house, port, subject)
    assert set(found) == {"subscriber", "entitlement", "entitlement_head"}
    (reader,) = found["subscriber"]
    assert (reader["email"], reader["name"], reader["note"]) == ("mei@example.com", "Mei", "likes puzzles")
    assert (reader["metadata"], reader["labels"]) == ({"tiers": "Gold"}, ["VIP"])
    (right,) = found["entitlement"]
    assert (right["feature"], right["complimentary"]) == ("premium", True)


async def test_an_erasure_leaves_nothing_and_says_so(house: House, port: SubjectDataServicer) -> None:
    subject, other = await imported(house), await imported(house, "other@example.com")
    receipt = await erase(house, port, subject)
    assert {(table.table, table.rows) for table in receipt.tables} == {
        ("subscriber", 1),
        ("entitlement", 1),
        ("entitlement_head", 1),
    }
    with house.service("compliance"):
        left = await port.Verify(
            subject_data_pb2.VerifyRequest(subject_id=ids.encode("subj", subject)),
            None,  # type: ignore[arg-type]
        )
    assert (left.residual, left.retained) == (0, 0)
    assert await exported(house, port, subject) == {}
    assert (await exported(house, port, other))["subscriber"][0]["email"] == "other@example.com"
    with house.staff(), pytest.raises(GatefoldError) as raised:
        await house.subscribers.get_subscriber(subject)
    assert raised.value.kind is Kind.NOT_FOUND


async def test_whoever_comes_back_after_an_erasure_is_somebody_new(house: House, port: SubjectDataServicer) -> None:
    subject = await imported(house)
    await erase(house, port, subject)
    with house.service():
        request = subscriber_pb2.EnsureSubjectRequest(
            email="mei@example.com", offered_subject_id=ids.encode("subj", house.ids.new())
        )
        answer = await house.subscriber_rpc.EnsureSubject(request, None)
    assert answer.created
    assert answer.subject_id != ids.encode("subj", subject)


async def test_a_reader_whose_key_is_gone_is_not_listed(house: House) -> None:
    subject = await imported(house)
    await imported(house, "other@example.com")
    await house.vault.destroy(house.account, subject)
    with house.staff():
        listed = await house.subscriber_rpc.ListSubscribers(subscriber_pb2.ListSubscribersRequest(), None)
    assert [reader.email for reader in listed.data] == ["other@example.com"]


async def test_the_description_names_what_is_sealed(house: House, port: SubjectDataServicer) -> None:
    with house.service("compliance"):
        described = await port.Describe(subject_data_pb2.DescribeRequest(), None)  # type: ignore[arg-type]
    sealed = {(column.table, column.column) for column in described.columns if column.sealed == "profile"}
    assert sealed == {
        ("subscriber", name) for name in ("email_sealed", "name_sealed", "note_sealed", "metadata_sealed")
    }
