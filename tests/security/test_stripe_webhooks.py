"""Attacks on the door that Stripe's webhooks come through: forged, stale and foreign events write nothing."""

from datetime import timedelta
from typing import Any

import orjson
import pytest

from libs import ids
from libs.errors import GatefoldError, Kind
from services.billing.usecases.collection import CONNECTION_TABLE, WEBHOOK_SECRETS_FIELD
from tests.integration.services.billing.conftest import (  # noqa: F401 — fixtures
    WEBHOOK_SECRET,
    House,
    house,
    signed,
    stripe_address,
)

NEW_SECRET = "whsec_bmV3IHNpZ25pbmcgc2VjcmV0"


async def paid_event(house: House) -> dict[str, Any]:  # noqa: F811
    """The event of a payment that was made."""
    checkout = await house.checkout(await house.price(), house.ids.new())
    await house.confirm(checkout)
    (event,) = await house.stripe_events("payment_intent.succeeded")
    return event


async def refused(house: House, payload: bytes, signature: str) -> GatefoldError:  # noqa: F811
    """Delivers; returns the error, after a look that nothing was written."""
    with pytest.raises(GatefoldError) as caught:
        await house.deliver_raw(payload, signature)
    await house.work()
    async with house.app.transaction("count", read_only=True) as conn:
        assert await conn.fetchval("SELECT count(*) FROM stripe_event WHERE account_id = $1", house.account) == 0
    assert await house.rows("SELECT DISTINCT state FROM subscription") == [("incomplete",)]
    assert await house.event_types() == []
    return caught.value


def now(house: House) -> int:  # noqa: F811
    return int(house.clock.wall().timestamp())


@pytest.mark.case("billing-17")
@pytest.mark.parametrize(
    "signature",
    [
        "",
        "nonsense",
        "t=1",
        "t=abc,v1=00",
        "v1=00",
        "t={now},v1=",
        "t={now},v1=0000000000000000000000000000000000000000000000000000000000000000",
        "t={now},v0={mark}",
        "t={later},v1={mark}",
        "t={now},v1=\u00e9",
    ],
)
async def test_a_forged_signature_is_refused(house: House, signature: str) -> None:  # noqa: F811
    payload = orjson.dumps(await paid_event(house))
    mark = signed(payload, now(house), WEBHOOK_SECRET).partition("v1=")[2]
    forged = signature.format(now=now(house), later=now(house) + 1, mark=mark)
    error = await refused(house, payload, forged)
    assert (error.kind, error.reason) == (Kind.UNAUTHENTICATED, "webhook_signature_invalid")


@pytest.mark.case("billing-17")
@pytest.mark.parametrize("secret", ["", " ", "whsec_", "whsec_YW5vdGhlciBzZWNyZXQgYWx0b2dldGhlcg"])
async def test_another_or_an_empty_secret_does_not_sign(house: House, secret: str) -> None:  # noqa: F811
    payload = orjson.dumps(await paid_event(house))
    error = await refused(house, payload, signed(payload, now(house), secret))
    assert error.reason == "webhook_signature_invalid"


@pytest.mark.case("billing-17")
async def test_a_changed_body_is_refused(house: House) -> None:  # noqa: F811
    event = await paid_event(house)
    signature = signed(orjson.dumps(event), now(house), WEBHOOK_SECRET)
    event["data"]["object"]["amount"] = 1
    assert (await refused(house, orjson.dumps(event), signature)).reason == "webhook_signature_invalid"


@pytest.mark.case("billing-17")
@pytest.mark.parametrize(("age", "taken"), [(300, True), (301, False), (-300, True), (-301, False)])
async def test_an_old_signature_is_no_longer_taken(house: House, age: int, taken: bool) -> None:  # noqa: F811
    payload = orjson.dumps(await paid_event(house))
    signature = signed(payload, now(house) - age, WEBHOOK_SECRET)
    if taken:
        assert await house.deliver_raw(payload, signature)
    else:
        assert (await refused(house, payload, signature)).reason == "webhook_signature_invalid"


@pytest.mark.case("billing-17")
async def test_a_replay_after_five_minutes_is_refused(house: House) -> None:  # noqa: F811
    payload = orjson.dumps(await paid_event(house))
    signature = signed(payload, now(house), WEBHOOK_SECRET)
    house.clock.advance(timedelta(minutes=6))
    assert (await refused(house, payload, signature)).reason == "webhook_signature_invalid"


@pytest.mark.case("billing-17")
async def test_a_live_event_does_not_reach_a_test_account(house: House) -> None:  # noqa: F811
    payload = orjson.dumps(await paid_event(house) | {"livemode": True})
    error = await refused(house, payload, signed(payload, now(house), WEBHOOK_SECRET))
    assert (error.kind, error.reason) == (Kind.FORBIDDEN, "webhook_livemode_mismatch")


@pytest.mark.case("billing-17")
async def test_an_event_of_another_stripe_account_is_refused(house: House) -> None:  # noqa: F811
    payload = orjson.dumps(await paid_event(house) | {"account": "acct_1somebodyelse"})
    error = await refused(house, payload, signed(payload, now(house), WEBHOOK_SECRET))
    assert error.reason == "webhook_account_foreign"


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b"\xff\xfe", b'{"id":1,"data":{"object":7}}', b"null"])
async def test_what_is_no_event_is_refused(house: House, payload: bytes) -> None:  # noqa: F811
    await paid_event(house)
    error = await refused(house, payload, signed_bytes(payload, now(house)))
    assert error.kind in {Kind.MALFORMED, Kind.UNAUTHENTICATED}


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": ["gatefold_account"]},
        {"metadata": "gatefold_account"},
        {"last_payment_error": "card_declined"},
        {"last_payment_error": {"code": {"of": "decline"}}},
        {"payment_method": 7},
        {"payment_method": {"id": ["pm_1"]}},
        {"amount": "990"},
        {"amount": True},
        {"amount": 2**63},
        {"currency": 978},
        {"status": "succeeded\0"},
    ],
)
async def test_a_signed_event_of_another_shape_is_malformed(
    house: House,  # noqa: F811
    change: dict[str, Any],
) -> None:
    event = await paid_event(house)
    event["data"]["object"] |= change
    payload = orjson.dumps(event)
    error = await refused(house, payload, signed_bytes(payload, now(house)))
    assert (error.kind, error.reason) == (Kind.MALFORMED, "webhook_malformed")


@pytest.mark.parametrize("change", [{"created": 2**63}, {"created": "soon"}, {"id": ""}, {"type": "a\0b"}])
async def test_a_signed_event_with_an_odd_head_is_malformed(
    house: House,  # noqa: F811
    change: dict[str, Any],
) -> None:
    payload = orjson.dumps(await paid_event(house) | change)
    error = await refused(house, payload, signed_bytes(payload, now(house)))
    assert (error.kind, error.reason) == (Kind.MALFORMED, "webhook_malformed")


def signed_bytes(payload: bytes, second: int) -> str:
    return signed(payload, second, WEBHOOK_SECRET)


async def test_an_unknown_connection_is_not_found(house: House) -> None:  # noqa: F811
    payload = orjson.dumps(await paid_event(house))
    house.connection = ids.encode("pc", house.ids.new())
    error = await refused(house, payload, signed(payload, now(house), WEBHOOK_SECRET))
    assert error.kind is Kind.NOT_FOUND


@pytest.mark.case("billing-17")
@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"gatefold_account": None},
        {"gatefold_account": "acct_01h455vb4pex5vsknk084sn02q"},
        {"gatefold_payment": None},
        {"gatefold_payment": "pi_1"},
        {"gatefold_payment": "pay_zzzz"},
    ],
)
async def test_an_object_that_is_not_tagged_ours_is_taken_and_ignored(
    house: House,  # noqa: F811
    tags: dict[str, str | None],
) -> None:
    event = await paid_event(house)
    found = event["data"]["object"]["metadata"]
    event["data"]["object"]["metadata"] = (
        {name: text for name, text in (found | tags).items() if text is not None} if tags else {}
    )
    assert await house.deliver(event)
    await house.work()
    assert await house.rows("SELECT state, intent FROM stripe_event WHERE account_id = $1", house.account) == [
        ("ignored", None)
    ]
    assert await house.event_types() == []


@pytest.mark.case("billing-17")
@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({"amount": 1}, "amount_mismatch"),
        ({"currency": "usd"}, "amount_mismatch"),
        ({"currency": "zzz"}, "currency_unknown"),
        ({"currency": "isk"}, "amount_not_chargeable"),
        ({"id": "pi_of_another_payment"}, "intent_foreign"),
        ({"status": "vanished"}, "status_unknown"),
    ],
)
async def test_an_event_that_contradicts_the_payment_moves_nothing(
    house: House,  # noqa: F811
    change: dict[str, Any],
    outcome: str,
) -> None:
    event = await paid_event(house)
    event["data"]["object"] |= change
    await house.deliver(event)
    await house.work()
    kept = "SELECT state, outcome FROM stripe_event WHERE account_id = $1"
    assert await house.rows(kept, house.account) == [("refused", outcome)]
    assert await house.rows("SELECT state FROM subscription") == [("incomplete",)]


@pytest.mark.case("billing-17")
async def test_another_connection_of_the_account_cannot_pay(house: House) -> None:  # noqa: F811
    event = await paid_event(house)
    await house.connect()
    await house.deliver(event)
    await house.work()
    kept = "SELECT state, outcome FROM stripe_event WHERE account_id = $1"
    assert await house.rows(kept, house.account) == [("refused", "connection_foreign")]


@pytest.mark.case("billing-17")
async def test_another_tenants_door_does_not_open_ours(house: House) -> None:  # noqa: F811
    event, ours = await paid_event(house), house.account
    house.account = house.ids.new()
    await house.connect()
    # Signed rightly for the other tenant, about an object of ours.
    await house.deliver(event)
    await house.work()
    house.account = ours
    assert await house.rows("SELECT state FROM subscription") == [("incomplete",)]


async def test_while_secrets_are_replaced_both_sign(house: House) -> None:  # noqa: F811
    event = await paid_event(house)
    connection = ids.decode("pc", house.connection)
    cipher = await house.vault.account_cipher(house.account)
    both = cipher.seal(CONNECTION_TABLE, WEBHOOK_SECRETS_FIELD, connection, orjson.dumps([NEW_SECRET, WEBHOOK_SECRET]))
    async with house.app.tenant(house.account, "rotate") as conn:
        await conn.execute("UPDATE payment_connection SET webhook_secrets_sealed = $1", both)
    assert await house.deliver(event, secret=WEBHOOK_SECRET)
    assert await house.deliver(event | {"id": "evt_2"}, secret=NEW_SECRET)
