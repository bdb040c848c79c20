"""Review as a target: other publishers' cases, scopes, one person as two, races, appeals that ask, forged telemetry."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from gatefold.abuse.v1 import appeal_pb2, case_pb2, detector_pb2, otlp_pb2, verdict_pb2
from gatefold.activity.v1 import activity_pb2
from google.api import httpbody_pb2
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from infra.local.valkey import ValkeyServer
from libs import ids
from libs.activity import FIELD, Pseudonyms, stream_of
from libs.caller import serving
from libs.clock import FixedClock, SystemClock
from libs.config import Secret
from libs.errors import GatefoldError
from libs.ids import IdMaker
from libs.redis_client import Store
from services.abuse.domain.case import ActionKind, Judgement
from services.abuse.domain.finding import Scope
from services.abuse.servicer.telemetry import TelemetryServicer
from services.abuse.usecases.allowances import UNDER_WAY, Allowances
from services.abuse.usecases.log_records import LogRecords
from tests.conftest import ServiceDb
from tests.support import abuse
from tests.support.abuse import AbuseHouse, Desk, anonymous, operator, peer, running, secret_key, staff
from tests.support.waiting import until

pytestmark = pytest.mark.case("edge-18")


@pytest.fixture
async def desk(service_db: ServiceDb, redis: Store, clock: FixedClock, ids: IdMaker) -> Desk:
    clock.set(datetime.now(UTC))
    found = Desk(await service_db("abuse"), redis, clock, ids)
    await found.hold()
    return found


@pytest.fixture(scope="module")
async def house(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[AbuseHouse]:
    folder = tmp_path_factory.mktemp("a")
    database = await service_db("abuse")
    url = valkey_server.url().reveal()
    async with running(database, keys_dsn.reveal(), url, key_file, folder, folder / "objects") as found:
        yield found


@pytest.fixture
def account(ids: IdMaker) -> UUID:
    return ids.new()


async def refused(call: object) -> str:
    with pytest.raises(GatefoldError) as caught:
        await call  # type: ignore[misc]
    return caught.value.reason


async def test_another_publishers_case_does_not_exist(
    house: AbuseHouse, desk: Desk, account: UUID, ids: IdMaker
) -> None:
    case = await desk.case_of(account, "attacker")
    text = abuse.ids.encode("case", case)
    stranger = staff(ids.new())
    for method, request in (
        (house.cases.GetCase, case_pb2.GetCaseRequest(id=text)),
        (house.cases.ClaimCase, case_pb2.ClaimCaseRequest(id=text)),
        (house.cases.ReleaseCase, case_pb2.ReleaseCaseRequest(id=text)),
        (house.cases.DecideCase, case_pb2.DecideCaseRequest(id=text, judgement=case_pb2.JUDGEMENT_LEGIT)),
        (house.cases.ActOnCase, case_pb2.ActOnCaseRequest(id=text, kind=case_pb2.ACTION_KIND_LIFT)),
    ):
        assert await refused(house.call(stranger, method, request)) == "case_not_found"
    assert not (await house.call(stranger, house.cases.ListCases, case_pb2.ListCasesRequest())).data
    answer = await house.call(
        stranger,
        house.cases.BulkDecideCases,
        case_pb2.BulkDecideCasesRequest(ids=[text], judgement=case_pb2.JUDGEMENT_LEGIT),
    )
    assert [one.reason for one in answer.data] == ["case_not_found"]
    # Nor is it the operators', whose own cases are about the platform.
    request = case_pb2.GetCaseRequest(id=text)
    assert await refused(house.call(operator(), house.platform.GetPlatformCase, request)) == "case_not_found"
    assert (await house.call(staff(account), house.cases.GetCase, request)).case.id == text


async def test_platform_cases_are_the_operators_alone(house: AbuseHouse, desk: Desk, account: UUID) -> None:
    case = await desk.case_of(None, "everywhere")
    request = case_pb2.GetCaseRequest(id=ids_text(case))
    assert (await house.call(operator(), house.platform.GetPlatformCase, request)).case.id == request.id
    for who in (staff(account), secret_key(account, "abuse:read"), anonymous()):
        assert await refused(house.call(who, house.platform.GetPlatformCase, request)) == "caller_kind_not_allowed"
    assert await refused(house.call(staff(account), house.cases.GetCase, request)) == "case_not_found"


def ids_text(case: UUID) -> str:
    return ids.encode("case", case)


async def test_reading_needs_one_scope_and_deciding_another(house: AbuseHouse, desk: Desk, account: UUID) -> None:
    text = ids_text(await desk.case_of(account, "attacker"))
    reader = staff(account, "ada", "abuse:read")
    assert (await house.call(reader, house.cases.GetCase, case_pb2.GetCaseRequest(id=text))).case.id == text
    decide = case_pb2.DecideCaseRequest(id=text, judgement=case_pb2.JUDGEMENT_LEGIT)
    assert await refused(house.call(reader, house.cases.DecideCase, decide)) == "scope_missing"
    other = staff(account, "ada", "subscribers:read")
    assert await refused(house.call(other, house.cases.GetCase, case_pb2.GetCaseRequest(id=text))) == "scope_missing"
    # A key may read for a publisher's own tools; judging is for people.
    key = secret_key(account, "abuse:read", "abuse:write")
    assert (await house.call(key, house.cases.GetCase, case_pb2.GetCaseRequest(id=text))).case.id == text
    assert await refused(house.call(key, house.cases.DecideCase, decide)) == "caller_kind_not_allowed"


async def test_one_person_is_not_two(house: AbuseHouse, desk: Desk, account: UUID) -> None:
    text = ids_text(await desk.case_of(account, "someone", scope=Scope.ACTOR))
    ask = case_pb2.ActOnCaseRequest(id=text, kind=case_pb2.ACTION_KIND_REVOKE, seconds=3600)
    action = await house.call(staff(account, "ada"), house.cases.ActOnCase, ask)
    agree = case_pb2.ApproveCaseActionRequest(id=text, action_id=action.id)
    assert await refused(house.call(staff(account, "ada"), house.cases.ApproveCaseAction, agree)) == "approval_own"
    # Whoever asks on somebody else's behalf meets the constraint of the database.
    for cheat in (
        "UPDATE case_action SET approved_by = requested_by, approved_at = requested_at, state = 'done'",
        "UPDATE case_action SET state = 'done'",
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            async with desk.database.app.tenant(account, "cheat") as conn:
                await conn.execute(cheat)
    done = await house.call(staff(account, "bob"), house.cases.ApproveCaseAction, agree)
    assert done.state == case_pb2.ACTION_STATE_DONE


async def test_an_approval_races_with_itself_and_is_done_once(desk: Desk, account: UUID) -> None:
    case = await desk.case_of(account, "someone", scope=Scope.ACTOR)
    action = await desk.actions.act(desk.who(account, "ada"), case, ActionKind.REVOKE, 60)
    tried = await asyncio.gather(
        *(
            desk.actions.approve(desk.who(account, f"person {number}"), case, ids.decode("cact", action.id))
            for number in range(8)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(one, case_pb2.CaseAction) for one in tried) == 1
    async with desk.database.app.tenant(account, "count", read_only=True) as conn:
        assert await conn.fetchval("SELECT count(*) FROM verdict WHERE detector = 'review'") == 1


async def test_a_tenants_people_demote_nothing_for_others_and_lift_nothing_of_the_platform(
    desk: Desk, account: UUID
) -> None:
    platform = await desk.case_of(None, "shared attacker")
    mine = await desk.case_of(account, "shared attacker")
    await desk.cases.decide(desk.who(account), mine, Judgement.LEGIT, 1.0, "")
    shown = await desk.cases.get_case(desk.who(None), platform)
    assert [verdict.state for verdict in shown.verdicts] == ["active"]
    with pytest.raises(GatefoldError, match="case_not_found"):
        await desk.cases.decide(desk.who(account), platform, Judgement.LEGIT, 1.0, "")


async def test_an_appeal_is_answered_alike_whatever_it_names(house: AbuseHouse, desk: Desk, account: UUID) -> None:
    [verdict] = await desk.store(desk.decision(account, "reader"))
    await desk.store(refused=[("req-known", ids.encode("verdict", verdict.id))])
    for instance in (
        "urn:gatefold:request:req-known",
        "urn:gatefold:request:req-unknown",
        "anything",
        "'; --",
        "x" * 200,
    ):
        answer = await house.call(anonymous(), house.appeals.Appeal, appeal_pb2.AppealRequest(instance=instance))
        assert answer == appeal_pb2.AppealResponse()

    async def appealed() -> bool:
        [case] = (await desk.cases.list_cases(desk.who(account))).data
        return case.appealed

    await until(appealed)


async def test_verdicts_are_for_those_who_act_on_them(house: AbuseHouse, account: UUID) -> None:
    request = verdict_pb2.ListVerdictsRequest()
    for name in ("gateway", "auth", "billing", "subscriber"):
        await house.call(peer(name), house.verdicts.ListVerdicts, request)
    for who in (peer("notify"), staff(account), operator(), anonymous()):
        assert await refused(house.call(who, house.verdicts.ListVerdicts, request))


async def test_detectors_are_tuned_by_operators_with_two_factors_alone(house: AbuseHouse, account: UUID) -> None:
    request = detector_pb2.TuneDetectorRequest(name="stuffing-address", mode=detector_pb2.DETECTOR_MODE_OFF)
    for who in (staff(account), secret_key(account, "abuse:write"), anonymous(), peer("gateway")):
        assert await refused(house.call(who, house.detectors.TuneDetector, request))
        assert await refused(house.call(who, house.detectors.ListDetectors, detector_pb2.ListDetectorsRequest()))
    listed = await house.call(operator(), house.detectors.ListDetectors, detector_pb2.ListDetectorsRequest())
    assert len(listed.data) > 20


def export(*records: LogRecord) -> bytes:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.extend(records)
    return request.SerializeToString()


def record(**attributes: str | int) -> LogRecord:
    made = LogRecord(time_unix_nano=int(datetime.now(UTC).timestamp() * 1e9))
    for name, value in attributes.items():
        pair = made.attributes.add(key=name.replace("__", "."))
        if isinstance(value, int):
            pair.value.int_value = value
        else:
            pair.value.string_value = value
    return made


async def streamed(redis: Store) -> list[activity_pb2.Activity]:
    found: list[activity_pb2.Activity] = []
    for shard in range(8):
        for _, fields in await redis.xrange(stream_of(shard)):
            found += activity_pb2.ActivityBatch.FromString(fields[FIELD]).activities
    return found


async def test_what_a_site_says_is_its_own_and_never_in_the_clear(
    house: AbuseHouse, redis: Store, account: UUID, ids: IdMaker
) -> None:
    victim = abuse.ids.encode("acct", ids.new())
    forged = record(
        client__address="192.0.2.7",
        user__id="reader-17",
        http__route="/articles/{id}",
        gatefold__account=victim,
        account_id=victim,
        verdict_id="verdict_x",
        refused_by_edge=1,
    )
    answer = await house.call(
        secret_key(account, "activity:write"),
        house.logs.ExportLogs,
        otlp_pb2.ExportLogsRequest(
            payload=httpbody_pb2.HttpBody(content_type="application/x-protobuf", data=export(forged))
        ),
    )
    assert ExportLogsServiceResponse.FromString(answer.data) == ExportLogsServiceResponse()
    [activity] = await streamed(redis)
    assert activity.account_id == abuse.ids.encode("acct", account)
    assert (activity.verdict_id, activity.refused_by_edge) == ("", False)
    assert activity.client_address_hash == Pseudonyms(abuse.PEPPER).of("address", "192.0.2.7")
    for text in (b"192.0.2", b"reader-17", victim.encode()):
        assert text not in activity.SerializeToString()


async def test_poisoned_records_are_refused_and_counted_and_the_rest_is_taken(
    house: AbuseHouse, redis: Store, account: UUID
) -> None:
    old, future = record(client__address="192.0.2.1"), record(client__address="192.0.2.1")
    old.time_unix_nano = 1
    future.time_unix_nano = (1 << 64) - 1
    many = LogRecord()
    for number in range(100):
        many.attributes.add(key=f"k{number}").value.string_value = "v"
    poisoned = [old, future, many, record(client__address="x" * 100_000), record(http__route="/nobody"), LogRecord()]
    answer = await house.call(
        secret_key(account, "activity:write"),
        house.logs.ExportLogs,
        otlp_pb2.ExportLogsRequest(
            payload=httpbody_pb2.HttpBody(
                content_type="application/x-protobuf", data=export(*poisoned, record(client__address="192.0.2.9"))
            )
        ),
    )
    said = ExportLogsServiceResponse.FromString(answer.data).partial_success
    assert said.rejected_log_records == len(poisoned)
    assert said.error_message
    assert len(await streamed(redis)) == 1


@pytest.mark.parametrize(
    ("content_type", "data", "reason"),
    [
        ("application/x-protobuf", b"\xff\xff\xff", "telemetry_malformed"),
        ("application/json", b"{", "telemetry_malformed"),
        ("application/json", b"[" * 5_000, "telemetry_malformed"),
        ("application/json", b'{"resourceLogs": "\xff"}', "telemetry_malformed"),
        ("text/plain", b"hello", "media_type_unsupported"),
        ("application/x-protobuf", export(*[LogRecord()] * 5_001), "telemetry_too_large"),
    ],
)
async def test_what_is_no_export_is_refused(
    house: AbuseHouse, redis: Store, account: UUID, content_type: str, data: bytes, reason: str
) -> None:
    request = otlp_pb2.ExportLogsRequest(payload=httpbody_pb2.HttpBody(content_type=content_type, data=data))
    who = secret_key(account, "activity:write")
    assert await refused(house.call(who, house.logs.ExportLogs, request)) == reason
    assert await streamed(redis) == []


async def test_telemetry_takes_its_own_scope(house: AbuseHouse, account: UUID) -> None:
    payload = httpbody_pb2.HttpBody(
        content_type="application/x-protobuf", data=export(record(client__address="192.0.2.1"))
    )
    request = otlp_pb2.ExportLogsRequest(payload=payload)
    for who in (secret_key(account, "abuse:read"), staff(account, "ada", "activity:write"), anonymous()):
        assert await refused(house.call(who, house.logs.ExportLogs, request))


async def test_a_flood_of_one_account_is_refused_and_another_hears_nothing_of_it(
    house: AbuseHouse, redis: Store, account: UUID, ids: IdMaker
) -> None:
    flood = export(*[record(client__address=f"192.0.2.{number % 250}") for number in range(5_000)])
    quiet, calm = ids.new(), export(record(client__address="198.51.100.77"))

    async def send(who: UUID, data: bytes) -> int:
        """Returns 0 for what is taken, otherwise the seconds to wait."""
        payload = httpbody_pb2.HttpBody(content_type="application/x-protobuf", data=data)
        try:
            await house.call(
                secret_key(who, "activity:write"), house.logs.ExportLogs, otlp_pb2.ExportLogsRequest(payload=payload)
            )
        except GatefoldError as error:
            return (error.retry_after_seconds or -1) if error.reason == "telemetry_rate" else -1
        return 0

    waits: list[int] = []
    while not waits or waits[-1] == 0:
        waits.append(await send(account, flood))
        assert await send(quiet, calm) == 0
    assert waits[-1] > 0
    told = await streamed(redis)
    heard = [one for one in told if one.account_id == abuse.ids.encode("acct", quiet)]
    assert len(heard) == len(waits)
    # Ten seconds' worth at once, what was earned meanwhile, and the export that went beyond.
    assert len(told) - len(heard) == 5_000 * (len(waits) - 1)
    # Several at once are no way around it.
    answers = await asyncio.gather(*(send(account, flood) for _ in range(6)))
    assert answers.count(0) <= UNDER_WAY


async def test_an_export_that_takes_long_to_read_keeps_nobody_waiting(account: UUID) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    class Slow(LogRecords):
        """Reads what a test lets it read."""

        def read(self, account: UUID, content_type: str, payload: bytes) -> tuple[list[activity_pb2.Activity], int]:
            begun.set()
            assert goes_on.wait(60)
            return super().read(account, content_type, b"")

    class Nowhere:
        async def take(self, activities: Sequence[activity_pb2.Activity]) -> None:
            assert list(activities) == []

    with ThreadPoolExecutor(1) as executor:
        records = Slow(Pseudonyms(abuse.PEPPER), SystemClock())
        servicer = TelemetryServicer(records, Nowhere(), Allowances(10, time.monotonic), executor)  # type: ignore[arg-type]
        payload = httpbody_pb2.HttpBody(content_type="application/x-protobuf")
        with serving(secret_key(account, "activity:write")):
            exporting = asyncio.create_task(servicer.ExportLogs(otlp_pb2.ExportLogsRequest(payload=payload), None))
        try:
            # The loop goes on while it is read.
            await until(begun.is_set)
            assert not exporting.done()
        finally:
            goes_on.set()
        assert (await exporting).data == b""
