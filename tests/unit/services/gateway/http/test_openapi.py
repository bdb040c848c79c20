"""The OpenAPI document: valid, complete, and in step with what the edge does."""

from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from services.gateway.http.contracts import Contracts
from services.gateway.http.openapi import document
from tests.support.messages import ROOT

CONTRACTS = Contracts.load(ROOT / "gen" / "descriptors.binpb")
DOCUMENT = document(CONTRACTS)
OPERATIONS = {operation["operationId"]: operation for path in DOCUMENT["paths"].values() for operation in path.values()}


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        found: dict[str, Any] = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return found
    return schema


def body(operation: str) -> dict[str, Any]:
    return resolved(OPERATIONS[operation]["requestBody"]["content"]["application/json"]["schema"])


def answer(operation: str, status: str = "200") -> dict[str, Any]:
    return resolved(OPERATIONS[operation]["responses"][status]["content"]["application/json"]["schema"])


def test_the_document_is_valid_openapi_3_1() -> None:
    validate(DOCUMENT, cls=OpenAPIV31SpecValidator)


def test_every_endpoint_is_an_operation_and_no_other_rpc() -> None:
    assert len(OPERATIONS) == len(CONTRACTS.endpoints)
    assert "resolveApiKey" not in OPERATIONS
    for endpoint in CONTRACTS.endpoints:
        assert endpoint.verb.lower() in DOCUMENT["paths"][endpoint.template]


def test_everything_has_a_text() -> None:
    for name, operation in OPERATIONS.items():
        assert operation["summary"], name
        assert all(parameter["description"] for parameter in operation["parameters"]), name
    for name, schema in DOCUMENT["components"]["schemas"].items():
        if name != "Problem":
            assert schema["description"], name
            assert all(field["description"] for field in schema["properties"].values()), name
    assert all(tag["description"] for tag in DOCUMENT["tags"])


def test_rules_stand_in_request_schemas() -> None:
    product = body("createProduct")
    assert product["required"] == ["name", "features"]
    assert product["additionalProperties"] is False
    assert product["properties"]["name"] == {
        "type": "string", "minLength": 1, "maxLength": 120, "description": "Name, as readers see it.",
    }  # fmt: skip
    features = product["properties"]["features"]
    assert (features["minItems"], features["maxItems"], features["uniqueItems"]) == (1, 20, True)
    assert features["items"]["pattern"] == "^(?:[a-z0-9_.-]{1,80})$"
    interval = body("createPlan")["properties"]["interval"]
    assert interval["enum"] == ["day", "week", "month", "year"]
    assert "- `month`: Calendar months." in interval["description"]
    assert body("register")["properties"]["password"]["writeOnly"] is True
    assert body("createSubscriber")["properties"]["metadata"]["maxProperties"] == 50


def test_path_fields_are_parameters_and_not_in_the_body() -> None:
    update = OPERATIONS["updateSubscriber"]
    assert [(p["name"], p["in"], p["required"]) for p in update["parameters"]] == [
        ("id", "path", True),
        ("Idempotency-Key", "header", False),
    ]
    assert "id" not in body("updateSubscriber")["properties"]
    assert "requestBody" not in OPERATIONS["archivePrice"]


def test_answers_have_every_field_and_say_what_may_be_null() -> None:
    price = answer("createPrice")
    assert price["required"] == list(price["properties"])
    assert price["properties"]["archived_at"]["type"] == ["string", "null"]
    assert {"type": "null"} in price["properties"]["amount"]["anyOf"]
    assert answer("createPlan")["properties"]["interval"]["enum"] == ["day", "week", "month", "year", None]
    assert "202" in OPERATIONS["createImport"]["responses"]


def test_files_and_webhooks_are_raw_and_headers_are_named() -> None:
    assert OPERATIONS["createImport"]["requestBody"] == {"required": True, "content": {"*/*": {"schema": {}}}}
    names = [parameter["name"] for parameter in OPERATIONS["receiveStripeWebhook"]["parameters"]]
    assert names == ["connection_id", "Stripe-Signature"]


def test_security_names_who_may_call() -> None:
    assert OPERATIONS["createApiKey"]["security"] == [{"staff_token": []}]
    assert OPERATIONS["listOffers"]["security"] == [
        {"secret_key": []}, {"publishable_key": []}, {"staff_token": []}, {"subscriber_token": []},
    ]  # fmt: skip
    assert OPERATIONS["getKeySet"]["security"] == [{}]


def test_refusals_are_problems() -> None:
    responses = OPERATIONS["createProduct"]["responses"]
    assert set(responses) == {"200", "400", "401", "403", "409", "413", "415", "422", "429", "503"}
    limited = DOCUMENT["components"]["responses"]["Problem429"]
    assert set(limited["headers"]) == {"X-Request-Id", "Retry-After"}
    assert list(limited["content"]) == ["application/problem+json"]
    assert set(responses["200"]["headers"]) == {"RateLimit", "RateLimit-Policy", "X-Request-Id"}


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_an_operation_says_its_limit_class(operation: str) -> None:
    assert "limit class `" in OPERATIONS[operation]["description"]
