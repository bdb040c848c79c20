"""Shows what billing tells and keeps of a reader: display data goes, books stay for ten years."""

from datetime import UTC, datetime

import orjson
from gatefold.privacy.v1 import subject_data_pb2

from libs import caller
from libs.ids import encode
from libs.privacy import SubjectDataServicer
from services.billing.__main__ import PERSONAL_TABLES
from tests.integration.services.billing.conftest import House


async def test_erasing_a_reader_deletes_card_and_customer_and_keeps_the_books(house: House) -> None:
    subject = house.ids.new()
    await house.subscribe(await house.price(), subject)
    await house.subscribe(await house.price(), other := house.ids.new())
    port = SubjectDataServicer("billing", house.app, house.vault, PERSONAL_TABLES, clock=house.clock)
    name = encode("subj", subject)
    with caller.serving(caller.service_caller("compliance", house.account, live=False, request_id="req_test")):
        exported = [part async for part in port.Export(subject_data_pb2.ExportRequest(subject_id=name), None)]
        tables = {part.table: [orjson.loads(line) for line in part.json_lines.splitlines()] for part in exported}
        plan = await port.PlanErase(subject_data_pb2.PlanEraseRequest(subject_id=name), None)
        await port.Erase(subject_data_pb2.EraseRequest(subject_id=name, plan_hash=plan.plan_hash), None)
        left = await port.Verify(subject_data_pb2.VerifyRequest(subject_id=name), None)

    assert tables["payment_method"][0]["columns"]["last4"] == "4242"
    planned = {table.table: table for table in plan.tables}
    assert planned["payment_method"].disposition == subject_data_pb2.DISPOSITION_DELETE
    invoice = planned["invoice"]
    assert (invoice.disposition, invoice.reason) == (subject_data_pb2.DISPOSITION_RETAIN, "tax_law")
    assert invoice.until.ToDatetime(tzinfo=UTC) == datetime(2037, 1, 1, tzinfo=UTC)
    assert left.residual == 0
    assert left.retained > 0
    assert await house.rows("SELECT subject_id FROM customer") == [(other,)]
    assert await house.rows("SELECT subject_id FROM payment_method") == [(other,)]
    assert await house.value("SELECT count(*) FROM invoice WHERE subject_id = $1", subject) == 1
    assert (await house.balances())["processor_receivable"] == 1980


async def test_an_export_holds_no_secret_of_the_provider(house: House) -> None:
    checkout = await house.checkout(await house.price(), subject := house.ids.new())
    port = SubjectDataServicer("billing", house.app, house.vault, PERSONAL_TABLES, clock=house.clock)
    with caller.serving(caller.service_caller("compliance", house.account, live=False, request_id="req_test")):
        request = subject_data_pb2.ExportRequest(subject_id=encode("subj", subject))
        lines = b"".join([part.json_lines async for part in port.Export(request, None)])
    assert b'"payment"' in lines
    assert b"client_secret" not in lines
    assert checkout.client_secret.encode() not in lines
