"""Requests through a whole gateway: what arrives at the service, and what comes back."""

from tests.support.gateway import SECRET_KEY, RunningGateway

PRODUCT = {"name": "News", "features": ["premium"]}


async def test_a_request_becomes_a_call_and_its_answer_json(gateway: RunningGateway) -> None:
    answer = await gateway.ask("POST", "/v1/products", credential=SECRET_KEY, json=PRODUCT)
    assert answer.status == 200, answer.body
    print(answer.json, dict(answer.headers))
