"""Requests through a whole gateway: what arrives at the service, and what comes back."""

import json
from typing import Any

import pytest

from libs import errors, ids
from libs.caller import CallerKind
from tests.support.gateway import ACCOUNT, PUBLISHABLE_KEY, READER, SECRET_KEY, RunningGateway

PRODUCT = {"name": "News", "features": ["premium"]}
ID = "01h455vb4pex5vsknk084sn02q"


async def test_a_request_becomes_a_call_and_its_answer_json(gateway: RunningGateway) -> None:
    answer = await gateway.ask("POST", "/v1/products", credential=SECRET_KEY, json=PRODUCT)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json == {
        "id": ids.encode("prod", READER),
        "name": "News",
        "features": ["premium"],
        "external_id": "",
        "created_at": None,
    }
    name, caller, request = gateway.backend.last()
    assert (name, request.name) == ("CreateProduct", "News")
    assert (caller.kind, caller.account, caller.live) == (CallerKind.SECRET_KEY, ACCOUNT, True)
    assert caller.scopes >= {"catalogue:write"}
    assert caller.address == "127.0.0.1"


async def test_a_token_says_who_the_caller_is(gateway: RunningGateway) -> None:
    answer = await gateway.ask("GET", "/v1/me", credential=gateway.backend.signer.token())
    assert answer.json["id"] == ids.encode("subj", READER)
    caller = gateway.backend.last()[1]
    assert (caller.kind, caller.subject, caller.account) == (CallerKind.SUBSCRIBER, READER, ACCOUNT)
    assert (caller.acr, caller.session) == ("aal1", READER)
    assert caller.auth_time is not None


async def test_enums_go_by_their_lower_case_names(gateway: RunningGateway) -> None:
    plan = {"product_id": f"prod_{ID}", "name": "Monthly", "interval": "month"}
    answer = await gateway.ask("POST", "/v1/plans", credential=SECRET_KEY, json=plan)
    assert answer.json["interval"] == "month"


async def test_path_and_body_meet_in_one_message(gateway: RunningGateway) -> None:
    path = f"/v1/subscribers/subj_{ID}"
    answer = await gateway.ask("PATCH", path, credential=SECRET_KEY, json={"name": "", "subscribed_to_emails": False})
    assert answer.status == 200
    request = gateway.backend.last()[2]
    assert request.id == f"subj_{ID}"
    assert request.HasField("name")
    assert request.HasField("subscribed_to_emails")
    assert not request.HasField("note")
    twice = await gateway.ask("PATCH", path, credential=SECRET_KEY, json={"id": f"subj_{ID}"})
    assert (twice.status, twice.json["errors"][0]["field"]) == (422, "id")


async def test_query_parameters_follow_the_same_rules(gateway: RunningGateway) -> None:
    answer = await gateway.ask("GET", "/v1/products?limit=7&cursor=a%20b", credential=SECRET_KEY)
    assert answer.status == 200
    request = gateway.backend.last()[2]
    assert (request.limit, request.cursor) == (7, "a b")
    for query, field, rule in (
        ("limit=500", "limit", "lte"),
        ("limit=x", "limit", "type"),
        ("limit=1&limit=2", "limit", "repeated"),
        ("colour=red", "colour", "unknown_field"),
    ):
        refused = await gateway.ask("GET", f"/v1/products?{query}", credential=SECRET_KEY)
        assert refused.status == 422
        assert [(e["field"], e["rule"]) for e in refused.json["errors"]] == [(field, rule)]
    assert (await gateway.ask("GET", "/v1/products?a=%ff", credential=SECRET_KEY)).reason == "query_malformed"


async def test_a_raw_body_arrives_byte_for_byte_with_the_header_its_contract_names(
    gateway: RunningGateway,
) -> None:
    body = b'{"id": "evt_1",\r\n "x": "\xc3\xa9\x00"}'
    headers = {"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": "t=1,v1=abc"}
    answer = await gateway.ask("POST", f"/v1/webhooks/stripe/pc_{ID}", data=body, headers=headers)
    assert answer.status == 200
    _, caller, request = gateway.backend.last()
    assert caller.kind is CallerKind.ANONYMOUS
    assert (request.connection_id, request.signature) == (f"pc_{ID}", "t=1,v1=abc")
    assert (request.payload.data, request.payload.content_type) == (body, headers["Content-Type"])


async def test_a_required_raw_body_is_missed_and_a_success_status_kept(gateway: RunningGateway) -> None:
    staff = gateway.backend.signer.staff(scope="subscribers:write")
    csv = {"Content-Type": "text/csv"}
    answer = await gateway.ask("POST", "/v1/imports", credential=staff, data=b"email\na@b.example\n", headers=csv)
    assert (answer.status, answer.json["state"]) == (202, "queued")
    empty = await gateway.ask("POST", "/v1/imports", credential=staff, headers=csv)
    assert (empty.status, empty.json["errors"][0]["rule"]) == (422, "required")


async def test_a_post_without_a_body_is_an_empty_object(gateway: RunningGateway) -> None:
    answer = await gateway.ask("POST", "/v1/products", credential=SECRET_KEY)
    assert {error["field"] for error in answer.json["errors"]} == {"name", "features"}


async def test_head_is_answered_like_get_without_a_body(gateway: RunningGateway) -> None:
    answer = await gateway.ask("HEAD", "/v1/offers", credential=PUBLISHABLE_KEY)
    assert (answer.status, answer.body) == (200, b"")


async def test_request_ids_are_kept_when_they_are_safe_and_made_when_not(gateway: RunningGateway) -> None:
    kept = await gateway.ask("GET", "/v1/offers", credential=SECRET_KEY, headers={"X-Request-Id": "order-1.2_3"})
    assert kept.headers["X-Request-Id"] == "order-1.2_3"
    assert gateway.backend.last()[1].request_id == "order-1.2_3"
    for odd in ("a b", "x" * 65, 'a"b', "<script>"):
        made = await gateway.ask("GET", "/v1/offers", credential=SECRET_KEY, headers={"X-Request-Id": odd})
        assert len(made.headers["X-Request-Id"]) == 32
        assert made.headers["X-Request-Id"] != odd


async def test_every_answer_tells_its_version_and_another_is_refused(gateway: RunningGateway) -> None:
    answer = await gateway.ask("GET", "/v1/offers", credential=SECRET_KEY, headers={"Gatefold-Version": "2026-11-01"})
    assert (answer.status, answer.headers["Gatefold-Version"]) == (200, "2026-11-01")
    other = await gateway.ask("GET", "/v1/offers", credential=SECRET_KEY, headers={"Gatefold-Version": "2025-01-01"})
    assert (other.status, other.reason) == (400, "version_unknown")


async def test_idempotency_keys_go_to_the_service_where_they_mean_something(gateway: RunningGateway) -> None:
    key = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
    await gateway.ask("POST", "/v1/products", credential=SECRET_KEY, json=PRODUCT, headers=key)
    assert gateway.backend.last()[1].idempotency_key == key["Idempotency-Key"]
    await gateway.ask("GET", "/v1/products", credential=SECRET_KEY, headers=key)
    assert gateway.backend.last()[1].idempotency_key is None
    for odd in ("", "x" * 256, "a b"):
        answer = await gateway.ask(
            "POST", "/v1/products", credential=SECRET_KEY, json=PRODUCT, headers={"Idempotency-Key": odd}
        )
        assert (answer.status, answer.reason) == (400, "idempotency_key_malformed")


@pytest.mark.parametrize(
    ("failure", "status", "reason"),
    [
        (errors.not_found("product_unknown", "There is no such product."), 404, "product_unknown"),
        (errors.conflict("idempotency_in_flight", "It is under way."), 409, "idempotency_in_flight"),
        (errors.invalid("idempotency_key_reused", "Another body.", field="name"), 422, "idempotency_key_reused"),
        (errors.payment_required("card_declined", "Declined."), 402, "card_declined"),
        (errors.unauthenticated("credentials_invalid", "Wrong."), 401, "credentials_invalid"),
        (errors.too_many("slow_down", "Later.", 7), 429, "slow_down"),
        (errors.unavailable("database_unavailable", "Away.", 3), 503, "database_unavailable"),
        (RuntimeError("secret detail of ours"), 500, "internal_error"),
    ],
)
async def test_what_a_service_raises_becomes_a_problem(
    gateway: RunningGateway, failure: Any, status: int, reason: str
) -> None:
    gateway.backend.failure = failure
    answer = await gateway.ask("POST", "/v1/products", credential=SECRET_KEY, json=PRODUCT)
    assert (answer.status, answer.reason) == (status, reason)
    problem = answer.json
    assert problem["type"] == f"/problems/{reason}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["instance"] == f"urn:gatefold:request:{answer.headers['X-Request-Id']}"
    assert b"secret detail" not in answer.body
    if isinstance(failure, errors.GatefoldError):
        assert problem["detail"] == failure.detail
        if failure.violations:
            assert problem["errors"] == [{"field": "name", "rule": reason, "detail": failure.detail}]
        if failure.retry_after_seconds:
            assert answer.headers["Retry-After"] == str(failure.retry_after_seconds)
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)


async def test_a_service_that_is_away_is_a_clear_503(gateway: RunningGateway) -> None:
    staff = gateway.backend.signer.staff(scope="mails:read")
    answer = await gateway.ask("GET", "/v1/mails", credential=staff)
    assert (answer.status, answer.reason) == (503, "service_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1


async def test_auth_away_leaves_tokens_working_and_keys_a_clear_503(fresh_gateway: RunningGateway) -> None:
    token = fresh_gateway.backend.signer.token()
    assert (await fresh_gateway.ask("GET", "/v1/me", credential=token)).status == 200
    await fresh_gateway.servers["auth"].drain(0)
    fresh = fresh_gateway.backend.signer.token(jti="another")
    assert (await fresh_gateway.ask("GET", "/v1/me", credential=fresh)).status == 200
    answer = await fresh_gateway.ask("GET", "/v1/offers", credential=SECRET_KEY)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


async def test_health_is_public_and_says_nothing(gateway: RunningGateway) -> None:
    for path in ("/healthz", "/readyz"):
        answer = await gateway.ask("GET", path)
        assert (answer.status, answer.json) == (200, {"status": "ok"})


async def test_the_key_set_is_public_and_may_be_kept_a_minute(gateway: RunningGateway) -> None:
    answer = await gateway.ask("GET", "/.well-known/jwks.json")
    assert answer.json["keys"][0]["kid"] == gateway.backend.signer.kid
    assert answer.headers["Cache-Control"] == "public, max-age=60"


async def test_answers_carry_the_security_headers(gateway: RunningGateway) -> None:
    for answer in (
        await gateway.ask("GET", "/v1/offers", credential=SECRET_KEY),
        await gateway.ask("GET", "/v1/nothing"),
    ):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Server"] == "gatefold"
        assert "Strict-Transport-Security" not in answer.headers


async def test_the_document_is_served_and_not_sent_again_unchanged(gateway: RunningGateway) -> None:
    answer = await gateway.ask("GET", "/openapi.json")
    assert json.loads(answer.body)["openapi"] == "3.1.0"
    again = await gateway.ask("GET", "/openapi.json", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")


async def test_each_reason_has_a_page(gateway: RunningGateway) -> None:
    problem = (await gateway.ask("GET", "/v1/nothing")).json
    page = await gateway.ask("GET", problem["type"])
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"route_unknown" in page.body


async def test_requests_are_counted_by_route_and_never_by_path(fresh_gateway: RunningGateway) -> None:
    await fresh_gateway.ask("PATCH", f"/v1/subscribers/subj_{ID}", credential=SECRET_KEY, json={})
    await fresh_gateway.ask("GET", "/v1/of/ada@news.example")
    labels = {"route": "/v1/subscribers/{id}", "method": "PATCH", "status": "200"}
    assert fresh_gateway.metric("gatefold_gateway_http_seconds_count", **labels) == 1
    assert fresh_gateway.metric("gatefold_gateway_problems_total", reason="route_unknown") == 1
    assert b"ada@news.example" not in fresh_gateway.process.telemetry.metrics()
