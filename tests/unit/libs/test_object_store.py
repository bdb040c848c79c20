"""The object store: the same behaviour on a disk and against an S3 endpoint."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from libs.config import Secret
from libs.errors import GatefoldError, Kind
from libs.object_store import ObjectStore, ObjectStoreConfig


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore.open(f"file://{tmp_path}/files%20here")


class TestFolder:
    async def test_what_was_put_is_got_until_it_is_deleted(self, store: ObjectStore) -> None:
        await store.put("imports/a.csv", b"\x00content")
        assert await store.get("imports/a.csv") == b"\x00content"
        await store.put("imports/a.csv", b"")
        assert await store.get("imports/a.csv") == b""
        await store.delete("imports/a.csv")
        with pytest.raises(GatefoldError) as raised:
            await store.get("imports/a.csv")
        assert (raised.value.kind, raised.value.reason) == (Kind.NOT_FOUND, "object_not_found")

    async def test_deleting_what_is_not_there_is_fine(self, store: ObjectStore) -> None:
        await store.delete("imports/nothing")

    async def test_keys_are_listed_by_prefix(self, store: ObjectStore) -> None:
        keys = {"a/1", "a/b/2", "ab/3", "4"} | {f"many/{number}" for number in range(120)}
        for key in keys:
            await store.put(key, b"x")
        assert {key async for key in store.list()} == keys
        assert {key async for key in store.list("a/")} == {"a/1", "a/b/2"}
        assert [key async for key in store.list("nothing/")] == []

    async def test_a_large_object_comes_back_whole(self, store: ObjectStore) -> None:
        content = bytes(range(256)) * 50_000
        await store.put("large", content)
        assert await store.get("large") == content

    async def test_what_must_be_new_is_not_replaced(self, store: ObjectStore) -> None:
        await store.put("once", b"first", replace=False)
        with pytest.raises(GatefoldError) as raised:
            await store.put("once", b"second", replace=False)
        assert (raised.value.kind, raised.value.reason) == (Kind.CONFLICT, "object_exists")
        assert await store.get("once") == b"first"

    async def test_concurrent_writers_leave_one_whole_object(self, store: ObjectStore) -> None:
        contents = [bytes([number]) * 100_000 for number in range(8)]
        await asyncio.gather(*(store.put("same", content) for content in contents))
        assert await store.get("same") in contents

    @pytest.mark.parametrize(
        "key",
        ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".", "a/.hidden", "a\\b", "a b", "ä", "a\n", "x" * 513],
    )
    async def test_a_key_that_leads_elsewhere_is_refused(self, store: ObjectStore, key: str) -> None:
        for attempt in (store.put(key, b""), store.get(key), store.delete(key)):
            with pytest.raises(ValueError, match="not a key"):
                await attempt

    async def test_the_folder_is_made_for_its_owner_alone(self, store: ObjectStore, tmp_path: Path) -> None:
        assert (tmp_path / "files here").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("url", ["", "/var/files", "file://host/path", "https://bucket", "s3:///prefix"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="an object store is file"):
        ObjectStore.open(url)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be used"):
        ObjectStore.open("s3://bucket", {"colour": "red"})
    with pytest.raises(ValueError, match="must be a JSON object"):
        ObjectStoreConfig("s3://bucket", Secret("[]")).open()


@pytest.fixture
async def bucket() -> AsyncIterator[tuple[TestServer, dict[str, bytes]]]:
    """Just enough of S3's REST interface to see what is sent: put, get, delete many and a missing key."""
    objects: dict[str, bytes] = {}

    async def put(request: web.Request) -> web.Response:
        assert request.headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=id/")
        objects[request.path] = await request.read()
        return web.Response(headers={"ETag": '"1"'})

    async def get(request: web.Request) -> web.Response:
        if request.path not in objects:
            return web.Response(status=404, text="<Error><Code>NoSuchKey</Code></Error>")
        return web.Response(body=objects[request.path], headers={"ETag": '"1"'})

    async def delete(request: web.Request) -> web.Response:
        assert "delete" in request.query
        keys = re.findall(r"<Key>(.*?)</Key>", await request.text())
        for key in keys:
            objects.pop(f"{request.path}/{key}", None)
        deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        return web.Response(text=f"<DeleteResult>{deleted}</DeleteResult>")

    app = web.Application()
    app.add_routes([web.put("/{key:.*}", put), web.get("/{key:.*}", get), web.post("/{bucket}", delete)])
    server = TestServer(app)
    await server.start_server()
    yield server, objects
    await server.close()


def s3_config(endpoint: str) -> ObjectStoreConfig:
    options = (
        f'{{"endpoint": "{endpoint}", "allow_http": true, "region": "eu-central-1",'
        ' "access_key_id": "id", "secret_access_key": "secret"}'
    )
    return ObjectStoreConfig("s3://bucket/some/prefix", Secret(options))


class TestBucket:
    async def test_objects_go_to_the_prefix_of_the_bucket(self, bucket: tuple[TestServer, dict[str, bytes]]) -> None:
        server, objects = bucket
        store = s3_config(str(server.make_url("/"))).open()
        await store.put("imports/a", b"content")
        assert list(objects) == ["/bucket/some/prefix/imports/a"]
        assert await store.get("imports/a") == b"content"
        await store.delete("imports/a")
        with pytest.raises(GatefoldError) as raised:
            await store.get("imports/a")
        assert raised.value.reason == "object_not_found"

    async def test_an_endpoint_that_is_away_is_unavailable(self, unused_tcp_port: int) -> None:
        store = s3_config(f"http://127.0.0.1:{unused_tcp_port}").open()
        with pytest.raises(GatefoldError) as raised:
            await store.get("imports/a")
        assert (raised.value.kind, raised.value.reason) == (Kind.UNAVAILABLE, "object_store_unavailable")
        assert raised.value.retry_after_seconds == 5

    def test_the_configuration_does_not_show_its_secrets(self) -> None:
        assert "secret" not in repr(s3_config("http://127.0.0.1:1"))
