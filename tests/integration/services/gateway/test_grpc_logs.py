"""Logs that an OpenTelemetry client sends by gRPC: taken as by HTTP, and refused as there."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from gatefold.activity.v1 import activity_pb2
from google.rpc import error_details_pb2, status_pb2
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from infra.local.valkey import ValkeyServer
from libs import ids
from libs.activity import FIELD, Pseudonyms, network_of, stream_of
from libs.config import Secret
from libs.redis_client import Store
from services.gateway.domain.bounds import ConnectionBounds
from services.gateway.http.address import Peer
from services.gateway.http.answer import Answer
from services.gateway.http.grpc_logs import CALLS_PER_CLIENT, HELD, MESSAGE_BYTES, METHOD, SERVICE, GrpcLogs, Handle
from tests.conftest import ServiceDb
from tests.support import abuse
from tests.support.certificates import Authority
from tests.support.gateway import ACCOUNT, PUBLISHABLE_KEY, SECRET_KEY, RunningGateway, api_key, running_gateway
from tests.support.neighbours import pair_secrets
from tests.support.waiting import until

pytestmark = pytest.mark.case("edge-15")

SITE_KEY, OFFICE_KEY = api_key(body="s" * 43), api_key(body="o" * 43)
WIDE = '{"strict.address":[100000,60],"write.server":[100000,60]}'
HIDDEN = Pseudonyms(abuse.PEPPER)


@dataclass
class Site:
    """A gateway, and the abuse service behind it, as a publisher's exporter reaches them."""

    gateway: RunningGateway
    logs: GrpcLogs

    @property
    def port(self) -> int:
        return self.logs.port or 0

    @asynccontextmanager
    async def stub(self, credentials: grpc.ChannelCredentials | None = None) -> AsyncIterator[Any]:
        address = f"localhost:{self.port}" if credentials else f"127.0.0.1:{self.port}"
        plain = grpc.aio.insecure_channel(address)
        channel = grpc.aio.secure_channel(address, credentials) if credentials else plain
        try:
            yield LogsServiceStub(channel)  # type: ignore[no-untyped-call]
        finally:
            await channel.close()
            await plain.close()

    async def export(
        self, request: ExportLogsServiceRequest, *, key: str | None = SITE_KEY, **options: Any
    ) -> ExportLogsServiceResponse:
        """Sends an export as an exporter does, its headers in lower case."""
        headers = [("authorization", f"Bearer {key}")] if key else []
        async with self.stub() as stub:
            answer: ExportLogsServiceResponse = await stub.Export(
                request, metadata=headers + options.pop("metadata", []), timeout=20, **options
            )
            return answer

    async def refusal(self, request: ExportLogsServiceRequest, **options: Any) -> tuple[grpc.StatusCode, str, int]:
        """Returns how an export is refused: code, reason, and seconds to wait."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.export(request, **options)
        trailers = dict(caught.value.trailing_metadata() or ())
        status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))  # type: ignore[arg-type]
        reason, wait = "", 0
        for detail in status.details:
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                reason = info.reason
            elif detail.Unpack(retry):
                wait = retry.retry_delay.seconds
        return caught.value.code(), reason, wait


@asynccontextmanager
async def site_of(directory: Path, redis_url: Secret, socket: str = "", **environ: str) -> AsyncIterator[Site]:
    neighbours = {"abuse": (socket, pair_secrets()["gateway>abuse"][0])} if socket else {}
    environ = {"rate_quotas": WIDE, "otlp_listen": "127.0.0.1:0", **environ}
    async with running_gateway(directory, redis_url, neighbours=neighbours, **environ) as gateway:
        gateway.backend.add_key(SITE_KEY, scopes=("activity:write",))
        gateway.backend.add_key(OFFICE_KEY, scopes=("activity:write",), networks=("198.51.100.0/24",))
        (served,) = [served for served in gateway.process._servers if isinstance(served, GrpcLogs)]
        yield Site(gateway, served)


@pytest.fixture(scope="module")
async def site(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    run_directory: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Site]:
    """The way whole: gateway, abuse, stores."""
    folder, url = run_directory / "telling", valkey_server.url()
    database, objects = await service_db("abuse"), tmp_path_factory.mktemp("objects")
    async with (
        abuse.running(database, keys_dsn.reveal(), url.reveal(), key_file, folder, objects),
        site_of(run_directory, url, f"unix:{folder}/abuse.sock", trusted_proxies="127.0.0.0/8") as made,
    ):
        yield made


def logged(*records: LogRecord) -> ExportLogsServiceRequest:
    """Returns what OpenTelemetry's SDK makes of records: batched and encoded as its exporters do."""
    memory, provider = InMemoryLogRecordExporter(), LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(memory))
    logger = provider.get_logger("site")
    for record in records:
        logger.emit(record)
    return encode_logs(memory.get_finished_logs())


def record(name: str = "", *, at: datetime | None = None, **attributes: str | int) -> LogRecord:
    moment = at or datetime.now(UTC)
    named = {key.replace("__", "."): value for key, value in attributes.items()}
    return LogRecord(timestamp=int(moment.timestamp() * 1e9), event_name=name or None, attributes=named)


async def streamed(redis: Store, address: str) -> list[activity_pb2.Activity]:
    """Returns what the abuse service was told about an address."""
    wanted, found = HIDDEN.of("address", address), []
    for shard in range(8):
        for _, fields in await redis.xrange(stream_of(shard)):
            batch = activity_pb2.ActivityBatch.FromString(fields[FIELD])
            found += [activity for activity in batch.activities if activity.client_address_hash == wanted]
    return found


async def test_what_an_exporter_sends_is_taken_and_pseudonymised(site: Site, redis: Store) -> None:
    sent = logged(
        record("meter.read", client__address="192.0.2.17", user__id="reader-17", http__route="/articles/{id}"),
        record(client__address="192.0.2.17", verdict_id="verdict_x", account_id="acct_x"),
    )
    assert await site.export(sent) == ExportLogsServiceResponse()
    read, request = await streamed(redis, "192.0.2.17")
    assert (read.event_name, request.event_name) == ("meter.read", "")
    assert {read.account_id, request.account_id} == {ids.encode("acct", ACCOUNT)}
    assert read.actor_hash == HIDDEN.of("actor", "reader-17")
    assert read.client_network_hash == HIDDEN.of("network", network_of("192.0.2.17"))
    assert request.verdict_id == ""
    assert b"192.0.2" not in read.SerializeToString()


async def test_what_is_no_good_is_counted_and_the_rest_is_taken(site: Site, redis: Store) -> None:
    past, future = datetime(2020, 1, 1, tzinfo=UTC), datetime(2199, 1, 1, tzinfo=UTC)
    sent = logged(
        record(client__address="192.0.2.18", at=past),
        record(client__address="192.0.2.18", at=future),
        record(client__address="192.0.2.18", http__route="x" * 100_000),
        record(http__route="/about nobody"),
        record(client__address="192.0.2.18"),
    )
    said = (await site.export(sent)).partial_success
    assert said.rejected_log_records == 4
    assert said.error_message
    assert len(await streamed(redis, "192.0.2.18")) == 1


async def test_a_compressed_message_is_read_and_one_that_unfolds_too_far_is_not(site: Site, redis: Store) -> None:
    gzip = {"compression": grpc.Compression.Gzip}
    assert await site.export(logged(record(client__address="192.0.2.19")), **gzip) == ExportLogsServiceResponse()
    assert len(await streamed(redis, "192.0.2.19")) == 1
    bomb = ExportLogsServiceRequest()
    bomb.resource_logs.add().schema_url = "x" * (MESSAGE_BYTES + 1)
    code, _, wait = await site.refusal(bomb, **gzip)
    assert (code, wait) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 0)


async def test_an_export_of_too_many_records_is_refused_for_good(site: Site, redis: Store) -> None:
    many = ExportLogsServiceRequest()
    records = many.resource_logs.add().scope_logs.add().log_records
    for _ in range(5_001):
        records.add(time_unix_nano=1)
    # No code that an exporter would try again by.
    assert await site.refusal(many) == (grpc.StatusCode.INVALID_ARGUMENT, "telemetry_too_large", 0)


@pytest.mark.parametrize(
    ("key", "code", "reason"),
    [
        (None, grpc.StatusCode.UNAUTHENTICATED, "credential_required"),
        ("nothing", grpc.StatusCode.UNAUTHENTICATED, "access_token_invalid"),
        (api_key(body="u" * 43), grpc.StatusCode.UNAUTHENTICATED, "api_key_invalid"),
        (SECRET_KEY, grpc.StatusCode.PERMISSION_DENIED, "scope_missing"),
        (PUBLISHABLE_KEY, grpc.StatusCode.PERMISSION_DENIED, "caller_kind_not_allowed"),
        (OFFICE_KEY, grpc.StatusCode.PERMISSION_DENIED, "network_not_allowed"),
    ],
)
async def test_who_may_not_is_refused_as_by_http(
    site: Site, redis: Store, key: str | None, code: grpc.StatusCode, reason: str
) -> None:
    request = logged(record(client__address="192.0.2.20"))
    assert (await site.refusal(request, key=key))[:2] == (code, reason)
    by_http = await site.gateway.ask(
        "POST",
        "/v1/otlp/v1/logs",
        **({"credential": key} if key else {}),
        headers={"Content-Type": "application/x-protobuf"},
        data=request.SerializeToString(),
    )
    assert by_http.reason == reason
    assert await streamed(redis, "192.0.2.20") == []


async def test_a_key_of_one_network_is_told_by_the_proxy_that_is_trusted(site: Site, redis: Store) -> None:
    request = logged(record(client__address="192.0.2.21"))
    office = [("x-forwarded-for", "203.0.113.1, 198.51.100.7")]
    assert await site.export(request, key=OFFICE_KEY, metadata=office) == ExportLogsServiceResponse()
    forged = [("x-forwarded-for", "198.51.100.7, 203.0.113.1")]
    assert (await site.refusal(request, key=OFFICE_KEY, metadata=forged))[1] == "network_not_allowed"


async def test_limits_and_trouble_behind_say_when_to_come_back(
    run_directory: Path, valkey_server: ValkeyServer
) -> None:
    request = logged(record(client__address="192.0.2.22"))
    quotas = '{"strict.address":[100000,60],"write.server":[2,60]}'
    async with site_of(run_directory, valkey_server.url(), rate_quotas=quotas) as site:
        # Nobody is behind: exporters keep what they have and try again.
        code, _, _ = await site.refusal(request)
        assert code is grpc.StatusCode.UNAVAILABLE
        answers = [await site.refusal(request) for _ in range(4)]
    code, reason, wait = answers[-1]
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "rate_limited")
    assert wait > 0


async def test_calls_whose_message_never_comes_make_room_for_others(
    run_directory: Path, valkey_server: ValkeyServer
) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async with (
        site_of(run_directory, valkey_server.url(), body_seconds="0.2") as site,
        grpc.aio.insecure_channel(f"127.0.0.1:{site.port}") as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.stream_unary(f"/{SERVICE}/{METHOD}")(nothing(), timeout=20)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert caught.value.details() == "The message took too long to arrive."
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.stream_unary(f"/{SERVICE}/{METHOD}")([], timeout=20)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_nothing_but_logs_is_served(site: Site) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{site.port}") as channel:
        for method in (
            "/gatefold.abuse.v1.VerdictService/ListVerdicts",
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(method)(b"", timeout=20)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_with_a_certificate_it_speaks_tls_and_takes_a_new_one(
    run_directory: Path, valkey_server: ValkeyServer, tmp_path: Path
) -> None:
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    held = first.issue("localhost")
    files = {"http_certificate": str(held.certificate), "http_key": str(held.key)}

    async def code(site: Site, authority: Authority) -> grpc.StatusCode:
        trusted = grpc.ssl_channel_credentials(authority.path.read_bytes())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with site.stub(trusted) as stub:
                await stub.Export(logged(record()), timeout=20)
        return caught.value.code()

    async with site_of(run_directory, valkey_server.url(), **files) as site:
        assert await code(site, first) is grpc.StatusCode.UNAUTHENTICATED
        assert await code(site, second) is grpc.StatusCode.UNAVAILABLE
        renewed = second.issue("localhost")
        held.key.write_bytes(renewed.key.read_bytes())
        # In between they do not fit each other, and the pair before goes on.
        assert await code(site, first) is grpc.StatusCode.UNAUTHENTICATED
        assert site.gateway.metric("gatefold_gateway_certificate_changes_total", result="unusable") >= 1
        held.certificate.write_bytes(renewed.certificate.read_bytes())
        assert await code(site, second) is grpc.StatusCode.UNAUTHENTICATED
        assert site.gateway.metric("gatefold_gateway_certificate_changes_total", result="taken") == 1


def logs_of(handle: Handle, address_of: Callable[[Peer], str] = str, *, port: int = 0, **options: Any) -> GrpcLogs:
    bounds = ConnectionBounds(refusals_per_client=1, refusal_seconds=3600)
    listen = f"127.0.0.1:{port}"
    return GrpcLogs(handle, listen, bounds, message_seconds=60, address_of=address_of, monotonic=lambda: 0.0, **options)


async def test_processes_share_a_port_only_where_it_is_said() -> None:
    async def nobody(request: Any) -> Any:
        raise AssertionError("nobody asks")

    first = logs_of(nobody, shared_port=True)
    await first.start()
    try:
        for shared in (True, False):
            other = logs_of(nobody, port=first.port or 0, shared_port=shared)
            if shared:
                await other.start()
                await other.drain(0)
            else:
                with pytest.raises(RuntimeError):
                    await other.start()
    finally:
        await first.drain(0)


def channels_to(logs: GrpcLogs, count: int) -> list[grpc.aio.Channel]:
    """Returns channels of one connection each, which takes eight calls at one time."""
    own = (("grpc.use_local_subchannel_pool", 1),)
    return [grpc.aio.insecure_channel(f"127.0.0.1:{logs.port}", own) for _ in range(count)]


def neighbouring(peer: Peer) -> str:
    """Another address of one /64 for each connection."""
    return f"2001:db8::{peer[1]:x}"


@pytest.mark.parametrize(
    ("address_of", "bounded"), [(lambda peer: "198.51.100.7", True), (neighbouring, True), (lambda peer: "", False)]
)
async def test_one_client_does_not_take_all_places(address_of: Callable[[Peer], str], bounded: bool) -> None:
    async def nobody(request: Any) -> Any:
        raise AssertionError("no message comes")

    logs = logs_of(nobody, address_of)
    await logs.start()
    channels = channels_to(logs, 3)
    try:
        # Heads alone, as many as two connections hold, and one more.
        calls = [channels[n // 8].stream_unary(f"/{SERVICE}/{METHOD}")() for n in range(CALLS_PER_CLIENT + 1)]
        if bounded:
            done, _ = await asyncio.wait(
                [asyncio.ensure_future(call.code()) for call in calls], return_when=asyncio.FIRST_COMPLETED, timeout=60
            )
            assert {task.result() for task in done} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        else:
            await until(lambda: logs._under_way.total() == CALLS_PER_CLIENT + 1)
    finally:
        for channel in channels:
            await channel.close()
        await logs.drain(0)


async def test_who_is_refused_too_often_waits_for_it(run_directory: Path, valkey_server: ValkeyServer) -> None:
    request = logged(record(client__address="192.0.2.23"))
    settings = {"refusals_per_client": "2", "refusal_seconds": "3600"}
    async with site_of(run_directory, valkey_server.url(), **settings) as site:
        # However long it takes until all are there, it is one second.
        site.logs._restraint._monotonic = lambda: 0.0
        calls = [asyncio.create_task(site.refusal(request, key=None)) for _ in range(6)]
        await until(lambda: len(site.logs._restraint) == 4)
        await until(lambda: sum(call.done() for call in calls) == 2)
        # What the gateway lets pass is not held, whatever comes of it.
        assert (await site.refusal(request))[0] is grpc.StatusCode.UNAVAILABLE
        impatient = next(call for call in calls if not call.done())
        impatient.cancel()
        await until(lambda: len(site.logs._restraint) == 3)
        site.logs._restraint.end()
        told = await asyncio.gather(*(call for call in calls if call is not impatient))
    assert set(told) == {(grpc.StatusCode.UNAUTHENTICATED, "credential_required", 0)}


async def test_calls_that_are_held_leave_places_for_others() -> None:
    async def refuse(request: Any) -> Answer:
        await request.protocol.refused()
        return Answer(403)

    # Each connection is another client's.
    logs = logs_of(refuse, lambda peer: f"client {peer[1]}")
    await logs.start()
    channels = channels_to(logs, 7)
    try:
        calls = [
            asyncio.ensure_future(channels[n // 8].unary_unary(f"/{SERVICE}/{METHOD}")(b"").code()) for n in range(48)
        ]
        # Six are told at once, and of the others those held longest.
        await until(lambda: sum(call.done() for call in calls) == 48 - HELD)
        assert len(logs._restraint) == HELD
        late = channels[6].unary_unary(f"/{SERVICE}/{METHOD}")(b"")
        assert await late.code() is grpc.StatusCode.PERMISSION_DENIED
        draining = asyncio.create_task(logs.drain(60))
        assert set(await asyncio.gather(*calls)) == {grpc.StatusCode.PERMISSION_DENIED}
        await draining
    finally:
        for channel in channels:
            await channel.close()
        await logs.drain(0)
