"""What is read of a request, and what becomes of its body when the connection is lost."""

import asyncio
from typing import Any

import pytest
from aiohttp import HttpVersion11, StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from services.gateway.http.request import Request


def sent(content: StreamReader, *, closes: bool = False) -> Request:
    headers = CIMultiDictProxy(CIMultiDict({"User-Agent": "tests"}))
    message = RawRequestMessage(
        "POST", "/a?b=c", HttpVersion11, headers, ((b"User-Agent", b"tests"),), closes, None, False, False, URL("/a")
    )
    unused: Any = None
    return Request(message, content, unused)


async def test_it_holds_what_was_sent_and_whether_there_is_a_body() -> None:
    body = StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**16, loop=asyncio.get_running_loop())
    with_body, without = sent(body), sent(EMPTY_PAYLOAD, closes=True)
    assert (with_body.method, with_body.raw_path, with_body.headers["user-agent"]) == ("POST", "/a?b=c", "tests")
    assert (with_body.body_exists, without.body_exists) == (True, False)
    assert (with_body.keep_alive, without.keep_alive) == (True, False)


async def test_whoever_reads_a_body_learns_that_no_more_of_it_comes() -> None:
    body = StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**16, loop=asyncio.get_running_loop())
    sent(body)._cancel(ConnectionResetError())
    with pytest.raises(ConnectionResetError):
        await body.readany()
