"""TLS that the gateway terminates: what it takes, what it refuses, and certificates that change while it runs."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from cryptography import x509

from infra.local.valkey import ValkeyServer
from libs.config import Secret
from libs.tls import Tls
from tests.support.certificates import Authority
from tests.support.crowd import Crowd, crowd_of
from tests.support.gateway import running_gateway
from tests.support.waiting import until

NAME = "gateway.test"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: gateway.test\r\n\r\n"
SECONDS = 0.5


class Files:
    """The certificate files that a gateway was told of."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory, "edge")
        self.certificate, self.key = directory / "tls.crt", directory / "tls.key"
        self.number = 0
        self.put(self.issue())

    def issue(self) -> Tls:
        """Returns a new certificate."""
        self.number += 1
        return self.authority.issue(NAME, common_name=f"number {self.number}")

    def put(self, issued: Tls) -> None:
        """Puts a certificate and its key where the gateway looks."""
        shutil.copy(issued.certificate, self.certificate)
        shutil.copy(issued.key, self.key)

    @property
    def settings(self) -> dict[str, str]:
        """What the gateway is told."""
        return {"http_certificate": str(self.certificate), "http_key": str(self.key)}

    def client(self) -> ssl.SSLContext:
        """Returns a client's context that trusts the authority."""
        return ssl.create_default_context(cafile=str(self.authority.path))


class Edge:
    """A gateway by TLS."""

    def __init__(self, crowd: Crowd, files: Files) -> None:
        self.crowd = crowd
        self.files = files

    async def connect(
        self, context: ssl.SSLContext | None = None, first: bytes = b""
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Opens a connection, with something said before TLS begins."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.crowd.gateway.port)
        writer.write(first)
        await writer.start_tls(context or self.files.client(), server_hostname=NAME)
        return reader, writer

    async def ask(self, context: ssl.SSLContext | None = None) -> tuple[bytes, ssl.SSLObject]:
        """Asks after health over a connection of its own."""
        reader, writer = await self.connect(context)
        try:
            writer.write(HEALTH)
            head = await reader.readuntil(b"\r\n\r\n")
            return head, writer.get_extra_info("ssl_object")
        finally:
            writer.close()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
async def edge(run_directory: Path, valkey_server: ValkeyServer, files: Files) -> AsyncIterator[Edge]:
    async with _running(run_directory, valkey_server.url(), files) as crowd:
        yield Edge(crowd, files)


def _running(run_directory: Path, redis: Secret, files: Files, **more: str) -> "_Running":
    return _Running(run_directory, redis, {**files.settings, "handshake_seconds": str(SECONDS), **more})


class _Running:
    """A gateway and its crowd as one block."""

    def __init__(self, run_directory: Path, redis: Secret, settings: dict[str, str]) -> None:
        self._gateway = running_gateway(run_directory, redis, **settings)

    async def __aenter__(self) -> Crowd:
        self._crowd = crowd_of(await self._gateway.__aenter__())
        return await self._crowd.__aenter__()

    async def __aexit__(self, *raised: object) -> None:
        await self._crowd.__aexit__(None, None, None)
        await self._gateway.__aexit__(None, None, None)


def _only(version: ssl.TLSVersion, ciphers: str = "DEFAULT:@SECLEVEL=0") -> Callable[[ssl.SSLContext], ssl.SSLContext]:
    def narrowed(context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = version
        context.minimum_version = version
        context.set_ciphers(ciphers)
        return context

    return narrowed


async def test_tls_1_3_is_spoken_with_http_1_1_and_hsts(edge: Edge) -> None:
    context = edge.files.client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    head, session = await edge.ask(context)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"Strict-Transport-Security: max-age=31536000; includeSubDomains" in head
    assert (session.version(), session.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
    assert session.compression() is None


async def test_tls_1_2_is_spoken_with_forward_secrecy_and_authenticated_encryption(edge: Edge) -> None:
    head, session = await edge.ask(_only(ssl.TLSVersion.TLSv1_2)(edge.files.client()))
    assert head.startswith(b"HTTP/1.1 200 ")
    cipher = session.cipher()
    assert cipher is not None
    assert cipher[0].startswith("ECDHE-")
    assert "GCM" in cipher[0] or "POLY1305" in cipher[0]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
@pytest.mark.parametrize(
    "narrow",
    [
        pytest.param(_only(ssl.TLSVersion.TLSv1_1), id="TLS 1.1"),
        pytest.param(_only(ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0"), id="CBC"),
        pytest.param(_only(ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256:@SECLEVEL=0"), id="no forward secrecy"),
        pytest.param(_only(ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES256-SHA:@SECLEVEL=0"), id="SHA-1"),
    ],
)
async def test_what_is_old_is_refused(edge: Edge, narrow: Callable[[ssl.SSLContext], ssl.SSLContext]) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await edge.ask(narrow(edge.files.client()))
    await until(lambda: edge.crowd.ended("handshake") == 1)
    assert (await edge.ask())[0].startswith(b"HTTP/1.1 200 ")


async def test_a_new_certificate_is_used_without_a_restart_and_open_connections_go_on(edge: Edge) -> None:
    reader, writer = await edge.connect()
    assert _number(writer.get_extra_info("ssl_object")) == "number 1"
    edge.files.put(edge.files.issue())
    assert _number((await edge.ask())[1]) == "number 2"
    writer.write(HEALTH)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    assert _changes(edge, "taken") == 1
    writer.close()


async def test_files_that_do_not_fit_each_other_leave_the_old_certificate(edge: Edge) -> None:
    issued = edge.files.issue()
    shutil.copy(issued.certificate, edge.files.certificate)
    assert _number((await edge.ask())[1]) == "number 1"
    edge.files.key.unlink()
    assert _number((await edge.ask())[1]) == "number 1"
    assert _changes(edge, "unusable") == 2
    shutil.copy(issued.key, edge.files.key)
    assert _number((await edge.ask())[1]) == "number 2"


async def test_a_handshake_that_does_not_come_to_an_end_is_ended(edge: Edge) -> None:
    silent, plain = await edge.crowd.client(), await edge.crowd.client()
    plain.say(HEALTH)
    half = await edge.crowd.client()
    half.say(b"\x16\x03\x01\x02\x00\x01")
    for client in (silent, plain, half):
        await client.rest()
    await until(lambda: edge.crowd.ended("handshake") == 3)
    assert (await edge.ask())[0].startswith(b"HTTP/1.1 200 ")


async def test_handshakes_are_few_for_one_client_and_the_longest_gives_way(
    run_directory: Path, valkey_server: ValkeyServer, files: Files
) -> None:
    limits = {"handshakes": "6", "handshakes_per_client": "3", "handshake_seconds": "60"}
    async with _running(run_directory, valkey_server.url(), files, **limits) as crowd:
        edge = Edge(crowd, files)
        for _ in range(3):
            await crowd.client("127.0.0.2")
        assert await (await crowd.client("127.0.0.2")).rest() == b""
        assert crowd.ended("refused_handshakes") == 1
        for address in range(3, 20):
            await crowd.client(f"127.0.0.{address}")
        assert (await edge.ask())[0].startswith(b"HTTP/1.1 200 ")
        assert crowd.ended("evicted_handshake") >= 14


async def test_tls_begins_behind_the_proxys_header(
    run_directory: Path, valkey_server: ValkeyServer, files: Files
) -> None:
    proxied = {"http_proxy_protocol": "true", "trusted_proxies": "127.0.0.1/32"}
    async with _running(run_directory, valkey_server.url(), files, **proxied) as crowd:
        line = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes([203, 0, 113, 7, 192, 0, 2, 1, 1, 1, 1, 187])
        reader, writer = await Edge(crowd, files).connect(first=line)
        writer.write(HEALTH)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        (connection,) = crowd.connections.open()
        assert (connection.client, connection.peer) == ("203.0.113.7", ("203.0.113.7", 257))
        writer.close()


def _number(session: ssl.SSLObject) -> object:
    der = session.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value


def _changes(edge: Edge, result: str) -> float:
    return edge.crowd.gateway.metric("gatefold_gateway_certificate_changes_total", result=result)
