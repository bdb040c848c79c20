"""Measures the gateway's codecs against google.protobuf.json_format, reading a request and writing an answer."""

from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from libs.codecs import RequestCodecs, ResponseCodecs
from services.gateway.config import ROOT
from services.gateway.http.contracts import Contracts
from tests.bench.harness import Bench

REQUEST = {
    "email": "ada@news.example",
    "name": "Ada Lovelace",
    "note": "Prefers the evening edition.",
    "subscribed_to_emails": True,
    "labels": ["founder", "london"],
    "external_id": "crm-1815",
    "metadata": {"source": "gala", "table": "7"},
}


async def measure(bench: Bench) -> None:
    """Compares both directions."""
    pool = Contracts.load(ROOT / "gen" / "descriptors.binpb").pool
    await _reading(bench, pool)
    await _writing(bench, pool)


async def _reading(bench: Bench, pool: DescriptorPool) -> None:
    descriptor = pool.FindMessageTypeByName("gatefold.subscriber.v1.CreateSubscriberRequest")
    parse, new, body = RequestCodecs().parser(descriptor), GetMessageClass(descriptor), orjson.dumps(REQUEST)

    async def ours() -> None:
        for _ in range(100):
            parse(orjson.loads(body))

    async def reference() -> None:
        for _ in range(100):
            json_format.Parse(body, new())

    await bench.compare("codecs-reading", ours, reference, named="json_format.Parse", goal=3.0)


async def _writing(bench: Bench, pool: DescriptorPool) -> None:
    descriptor = pool.FindMessageTypeByName("gatefold.billing.v1.Subscription")
    message: Any = GetMessageClass(descriptor)(
        id="sub_01h455vb4pex5vsknk084sn02q",
        subscriber_id="subj_01h455vb4pex5vsknk084sn02q",
        product_id="prod_01h455vb4pex5vsknk084sn02q",
        plan_id="plan_01h455vb4pex5vsknk084sn02q",
        price_id="price_01h455vb4pex5vsknk084sn02q",
        state=3,
        period_number=4,
    )
    message.amount.amount_minor, message.amount.currency = 990, "EUR"
    for field in ("current_period_start", "current_period_end", "created_at"):
        getattr(message, field).seconds = 1_793_000_000
    render = ResponseCodecs().renderer(descriptor)

    async def ours() -> None:
        for _ in range(100):
            render(message)

    async def reference() -> None:
        for _ in range(100):
            json_format.MessageToJson(message, always_print_fields_with_no_presence=True)

    await bench.compare("codecs-writing", ours, reference, named="json_format.MessageToJson", goal=3.0)
