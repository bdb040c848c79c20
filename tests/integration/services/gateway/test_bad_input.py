"""The bad-input matrix: what is refused, how, and that no service hears of it."""

import asyncio
from typing import Any

import pytest

from tests.support.gateway import SECRET_KEY, RunningGateway

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        ({"name": "News", "features": ["a"], "naem": "x"}, "naem", "unknown_field"),
        ({"name": 7, "features": ["a"]}, "name", "type"),
        ({"name": "News", "features": "a"}, "features", "type"),
        ({"name": "News", "features": ["A B"]}, "features[0]", "pattern"),
        ({"features": ["a"]}, "name", "required"),
        ({"name": "", "features": ["a"]}, "name", "min_len"),
        ({"name": "N\u0000", "features": ["a"]}, "name", "characters"),
    ],
)
async def test_a_field_that_breaks_a_rule_is_a_422(gateway: RunningGateway, body: Any, field: str, rule: str) -> None:
    answer = await gateway.ask("POST", "/v1/products", credential=SECRET_KEY, json=body)
    assert (answer.status, answer.reason) == (422, "request_invalid")
    assert [(error["field"], error["rule"]) for error in answer.json["errors"]] == [(field, rule)]
    assert gateway.backend.calls == []


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"nonsense", b'{"name": }', b"{'name': 1}", b'{"name": NaN}', b'\xff\xfe{"a":1}', b'{"name": "\\ud800"}',
        b'{"name": "\xff"}', b"[]", b"null", b'"x"', b"3", b"[" * 50_000, b'{"a":' * 50_000, b"\xef\xbb\xbf{}",
    ],
)  # fmt: skip
async def test_bad_json_is_a_400(gateway: RunningGateway, body: bytes) -> None:
    answer = await gateway.ask("POST", "/v1/products", credential=SECRET_KEY, data=body, headers=JSON)
    assert (answer.status, answer.reason) == (400, "json_malformed")
    assert gateway.backend.calls == []


async def test_of_a_name_that_comes_twice_the_last_counts(gateway: RunningGateway) -> None:
    body = b'{"name": "First", "name": "Last", "features": ["a"]}'
    answer = await gateway.ask("POST", "/v1/products", credential=SECRET_KEY, data=body, headers=JSON)
    assert answer.json["name"] == "Last"


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "application/jsonp",
        "multipart/form-data",
    ],
)
async def test_another_media_type_is_a_415(gateway: RunningGateway, content_type: str) -> None:
    answer = await gateway.ask(
        "POST", "/v1/products", credential=SECRET_KEY, data=b'{"name":"x"}', headers={"Content-Type": content_type}
    )
    assert (answer.status, answer.reason) == (415, "media_type_unsupported")


async def test_a_compressed_body_is_a_415(gateway: RunningGateway) -> None:
    headers = {**JSON, "Content-Encoding": "gzip"}
    answer = await gateway.ask("POST", "/v1/products", credential=SECRET_KEY, data=b"\x1f\x8b", headers=headers)
    assert (answer.status, answer.reason) == (415, "content_encoding_unsupported")


async def test_a_body_where_none_belongs_is_a_400(gateway: RunningGateway) -> None:
    answer = await gateway.ask("GET", "/v1/offers", credential=SECRET_KEY, json={"a": 1})
    assert (answer.status, answer.reason) == (400, "body_unexpected")


async def test_an_oversized_body_is_a_413_before_any_of_it_is_sent(gateway: RunningGateway) -> None:
    request = (
        f"POST /v1/products HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET_KEY}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n"
    )
    answer = await gateway.raw(request.encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"reason":"body_too_large"' in answer
    assert b"Connection: close" in answer


async def test_an_oversized_body_of_unknown_length_is_a_413_as_soon_as_it_is(gateway: RunningGateway) -> None:
    async def chunks() -> Any:
        for _ in range(40):
            yield b" " * 10_000

    answer = await gateway.ask("POST", "/v1/products", credential=SECRET_KEY, data=chunks(), headers=JSON)
    assert (answer.status, answer.reason) == (413, "body_too_large")


async def test_the_policy_decides_how_large_a_body_may_be(gateway: RunningGateway) -> None:
    staff = gateway.backend.signer.staff(scope="subscribers:write")
    answer = await gateway.ask(
        "POST", "/v1/imports", credential=staff, data=b"x" * 1_000_000, headers={"Content-Type": "text/csv"}
    )
    assert answer.status == 202


async def test_a_body_is_asked_for_only_when_the_request_is_wanted(gateway: RunningGateway) -> None:
    head = (
        "POST /v1/products HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nConnection: close\r\n"
        "Content-Type: application/json\r\nContent-Length: 34\r\nExpect: 100-continue\r\n\r\n"
    )
    refused = await gateway.raw(head.format("gfsk_live_nonsense").encode())
    assert refused.startswith(b"HTTP/1.1 401 ")
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head.format(SECRET_KEY).encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b'{"name": "News", "features":["a"]}')
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_an_unknown_route_is_a_404(gateway: RunningGateway) -> None:
    for path in ("/", "/v1/nothing", "/v1/products/", "/v1//products", "/metrics", "/v1/products/x/y"):
        answer = await gateway.ask("GET", path, credential=SECRET_KEY)
        assert (answer.status, answer.reason) == (404, "route_unknown")


async def test_a_wrong_method_is_a_405_that_says_which_are_right(gateway: RunningGateway) -> None:
    answer = await gateway.ask("DELETE", "/v1/products", credential=SECRET_KEY)
    assert (answer.status, answer.reason) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS, POST"
    page = await gateway.ask("POST", "/healthz")
    assert (page.status, page.headers["Allow"]) == (405, "GET, HEAD")


async def test_an_identifier_of_another_kind_is_a_422(gateway: RunningGateway) -> None:
    for odd in ("prod_01h455vb4pex5vsknk084sn02q", "subj_", "a%2Fb", "subj_01h455vb4pex5vsknk084sn02Q"):
        answer = await gateway.ask("PATCH", f"/v1/subscribers/{odd}", credential=SECRET_KEY, json={})
        assert (answer.status, answer.json["errors"][0]["rule"]) == (422, "id_prefix")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET /v1/offers HTTP/9.9\r\n\r\n",
        b"GET /v1/offers HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n",
        b"GET /v1/offers HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_no_request_is_a_problem_too(gateway: RunningGateway, request_bytes: bytes) -> None:
    answer = await gateway.raw(request_bytes)
    assert b" 400 " in answer.splitlines()[0]
    assert b"application/problem+json" in answer
    assert b'"reason":"request_malformed"' in answer
    assert b"X-Content-Type-Options: nosniff" in answer


async def test_a_path_or_header_that_is_no_text_is_no_fault_of_ours(gateway: RunningGateway) -> None:
    key = SECRET_KEY.encode()
    odd = await gateway.raw(b"GET /v1/offers?\xff\xfe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b" 400 " in odd.splitlines()[0]
    assert b"_malformed" in odd
    agent = await gateway.raw(
        b"GET /v1/offers HTTP/1.1\r\nHost: x\r\nUser-Agent: \xff\xfe\r\nOrigin: \xff\r\nX-Request-Id: \xff\r\n"
        b"Connection: close\r\nAuthorization: Bearer " + gateway.backend.signer.staff().encode() + b"\r\n\r\n"
    )
    assert agent.startswith(b"HTTP/1.1 200 "), agent
    signature = await gateway.raw(
        b"POST /v1/webhooks/stripe/pc_01h455vb4pex5vsknk084sn02q HTTP/1.1\r\nHost: x\r\nStripe-Signature: \xff\r\n"
        b"Connection: close\r\nContent-Length: 0\r\nAuthorization: Bearer " + key + b"\r\n\r\n"
    )
    assert signature.startswith(b"HTTP/1.1 422 "), signature


async def test_an_origin_that_no_header_can_carry_back_is_nobodys_site(gateway: RunningGateway) -> None:
    head = b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\nOrigin: https://a\tb\r\n\r\n"
    answer = await gateway.raw(head)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nAccess-Control-Allow-Origin: null\r\n" in answer
