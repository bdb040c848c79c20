"""Answers on the wire: what is written, and what may never be."""

import pytest
from aiohttp import HttpVersion10, HttpVersion11

from services.gateway.http.answer import Answer


@pytest.mark.parametrize("text", ["a\r\nSet-Cookie: b=c", "a\nb", "a\rb", "a\x00b", "a\x1fb"])
@pytest.mark.parametrize("name", ["Location", "ETag", "Content-Type", "Access-Control-Allow-Origin"])
def test_a_header_from_elsewhere_never_ends_its_line(name: str, text: str) -> None:
    with pytest.raises(ValueError, match="end of a line"):
        Answer(200, {name: text}).written()
    with pytest.raises(ValueError, match="end of a line"):
        Answer(200, cookies=["a=b", f"c={text}"]).written()


def test_an_answer_says_its_length_and_whether_more_may_be_asked() -> None:
    answer = Answer(200, {"ETag": '"a"', "X-Request-Id": "r"}, b"{}", ["a=b", "c=d"], standard="\r\nServer: gatefold")
    head, _, body = answer.written(version=HttpVersion11).partition(b"\r\n\r\n")
    lines = [line for line in head.decode().split("\r\n") if not line.startswith("Date: ")]
    assert lines == [
        "HTTP/1.1 200 OK",
        'ETag: "a"',
        "X-Request-Id: r",
        "Set-Cookie: a=b",
        "Set-Cookie: c=d",
        "Content-Length: 2",
        "Server: gatefold",
    ]
    assert body == b"{}"
    assert b"Connection: keep-alive" in answer.written(version=HttpVersion10)
    answer.ends = True
    assert b"Connection: close" in answer.written(version=HttpVersion11)


def test_what_has_no_body_sends_none() -> None:
    assert Answer(200, {}, b"{}").written(head=True).endswith(b"\r\n\r\n")
    assert b"Content-Length: 2" in Answer(200, {}, b"{}").written(head=True)
    assert b"Content-Length" not in Answer(304, {}, b"{}").written()
