"""Shows renewals on the account's clock: once each, tried again, ended, and lost answers found."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from libs.due import BEFORE_ALL, DueWorker
from libs.telemetry import Telemetry
from tests.integration.services.billing.conftest import PUBLISHABLE_KEY, House

MONTH = timedelta(days=31)


async def swap_card(house: House, card: str) -> None:
    """Has the reader's stored card be another one, as when a bank replaces or blocks it."""
    (customer,) = await house.made("customers")
    method = await house.ask_stripe(
        "POST",
        "/v1/payment_methods",
        {
            "type": "card",
            "card[number]": card,
            "card[exp_month]": "12",
            "card[exp_year]": "2034",
            "card[cvc]": "123",
        },
        key=PUBLISHABLE_KEY,
    )
    await house.ask_stripe("POST", f"/v1/payment_methods/{method['id']}/attach", {"customer": customer["id"]})
    async with house.app.tenant(house.account, "swap_card") as conn:
        await conn.execute("UPDATE payment_method SET provider_method = $1", method["id"])


async def test_a_subscription_renews_at_the_end_of_its_period(house: House) -> None:
    await house.subscribe(await house.price(), house.ids.new())
    await house.until(MONTH - timedelta(seconds=1))
    assert await house.value("SELECT period_number FROM subscription") == 1
    await house.until(timedelta(seconds=1))
    assert await house.rows("SELECT state, period_number, period_end FROM subscription") == [
        ("active", 2, datetime(2026, 3, 1, tzinfo=UTC))
    ]
    assert await house.event_types() == [
        "invoice.paid", "subscription.activated", "invoice.paid", "subscription.renewed",
    ]  # fmt: skip
    assert await house.rows("SELECT number FROM invoice ORDER BY number") == [("000001",), ("000002",)]
    # What the webhooks tell of it later changes nothing.
    await house.deliver_all()
    assert len(await house.event_types()) == 4
    assert (await house.balances())["processor_receivable"] == 1980


@pytest.mark.case("billing-1")
async def test_a_year_of_renewals_from_the_31st_follows_the_anchor(house: House) -> None:
    house.clock.set(datetime(2026, 1, 31, 12, tzinfo=UTC))
    await house.subscribe(await house.price(), house.ids.new())
    for _ in range(12):
        await house.until(MONTH)
    ends = [row[0] for row in await house.rows("SELECT period_end FROM invoice_line ORDER BY period_end")]
    assert [(end.month, end.day) for end in ends[:5]] == [(2, 28), (3, 31), (4, 30), (5, 31), (6, 30)]
    assert all(end.hour == 12 for end in ends)


async def test_many_workers_at_once_renew_once(house: House) -> None:
    price = await house.price()
    for _ in range(6):
        await house.subscribe(price, house.ids.new())
    house.clock.advance(MONTH)
    workers = [DueWorker(house.jobs, house.clock, house.parts.due_handlers, Telemetry("billing").logger("due"))] * 10

    async def work(worker: DueWorker) -> None:
        while items := (await worker.claim(BEFORE_ALL))[0]:
            # Every row by two at once, as if the first had lost its lease in the call.
            await asyncio.gather(*(house.parts.due_handlers[item.kind](item) for item in items for _ in range(2)))

    await asyncio.gather(*(work(worker) for worker in workers))
    assert await house.rows("SELECT DISTINCT state, period_number FROM subscription") == [("active", 2)]
    assert len(await house.made("payment_intents")) == 12
    numbers = [row[0] for row in await house.rows("SELECT number FROM invoice ORDER BY number")]
    assert numbers == [f"{each:06d}" for each in range(1, 13)]
    assert (await house.event_types()).count("subscription.renewed") == 6


async def test_a_declined_renewal_is_tried_three_times_more_and_then_ends(house: House) -> None:
    await house.subscribe(await house.price(), house.ids.new())
    await swap_card(house, "4000000000000341")
    await house.until(MONTH)
    assert await house.rows("SELECT state, period_number FROM subscription") == [("past_due", 1)]
    for day in range(1, 6):
        tried = await house.value("SELECT count(*) FROM payment WHERE off_session")
        assert tried == {1: 1, 2: 2, 3: 2, 4: 3, 5: 3}[day]
        await house.until(timedelta(days=1))
    assert await house.value("SELECT count(*) FROM payment WHERE off_session") == 4
    assert await house.rows("SELECT state, end_reason FROM subscription") == [("ended", "payment_failed")]
    assert await house.rows("SELECT state FROM invoice WHERE period_number = 2") == [("void",)]
    events = await house.events("subscription.")
    assert [event.type for event in events] == [
        "subscription.activated", "subscription.past_due", "subscription.ended",
    ]  # fmt: skip
    assert [event.sequence for event in events] == [1, 2, 3]
    failed = await house.events("payment.failed")
    assert [event.data.reason for event in failed] == ["card_declined"] * 4
    assert (await house.balances())["processor_receivable"] == 990


async def test_paying_on_the_last_attempt_keeps_the_subscription_and_its_anchor(house: House) -> None:
    await house.subscribe(await house.price(), house.ids.new())
    await swap_card(house, "4000000000000341")
    await house.until(MONTH)
    await house.until(timedelta(days=1))
    await house.until(timedelta(days=2))
    await swap_card(house, "4242424242424242")
    await house.until(timedelta(days=2))
    assert await house.rows("SELECT state, period_number, period_start, period_end FROM subscription") == [
        ("active", 2, datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC))
    ]
    await house.until(timedelta(days=1))
    assert await house.value("SELECT state FROM subscription") == "active"


async def test_a_renewal_that_needs_the_reader_is_not_charged_again(house: House) -> None:
    await house.subscribe(await house.price(), house.ids.new())
    await swap_card(house, "4000002760003184")
    await house.until(MONTH)
    assert await house.rows("SELECT state, charge_at FROM subscription") == [("past_due", None)]
    (failed,) = await house.events("payment.failed")
    assert failed.data.reason == "authentication_required"
    await house.until(timedelta(days=4))
    assert await house.value("SELECT count(*) FROM payment WHERE off_session") == 1
    await house.until(timedelta(days=1))
    assert await house.value("SELECT state FROM subscription") == "ended"


@pytest.mark.case("billing-18")
@pytest.mark.parametrize("kind", ["lost_reply", "lost_request", "error", "rate_limit"])
async def test_a_renewal_whose_answer_is_lost_is_charged_once(house: House, kind: str) -> None:
    await house.subscribe(await house.price(), house.ids.new())
    await house.fault(kind, "/v1/payment_intents", method="POST")
    await house.until(MONTH)
    assert await house.rows("SELECT state FROM payment WHERE off_session") == [("unknown",)]
    assert await house.value("SELECT state FROM subscription") == "active"
    # The lease ends and another worker takes over.
    await house.until(timedelta(minutes=2))
    assert await house.value("SELECT period_number FROM subscription") == 2
    charged = [each for each in await house.made("payment_intents") if each["status"] == "succeeded"]
    assert len(charged) == 2
    assert await house.value("SELECT count(*) FROM ledger_entry") == 4


async def test_a_reader_without_a_stored_card_falls_past_due(house: House) -> None:
    await house.subscribe(await house.price(), house.ids.new())
    async with house.app.tenant(house.account, "erase_card") as conn:
        await conn.execute("DELETE FROM payment_method")
    await house.until(MONTH)
    assert await house.value("SELECT state FROM subscription") == "past_due"
    (failed,) = await house.events("payment.failed")
    assert failed.data.reason == "payment_method_missing"


async def test_a_free_plan_renews_without_a_charge(house: House) -> None:
    checkout = await house.subscribe(await house.price(0), house.ids.new())
    assert checkout.mode == "setup"
    await house.until(MONTH)
    assert await house.rows("SELECT state, period_number FROM subscription") == [("active", 2)]
    assert await house.made("payment_intents") == []
    assert await house.balances() == {}


async def test_missed_periods_are_billed_one_by_one(house: House) -> None:
    await house.subscribe(await house.price(), house.ids.new())
    await house.until(timedelta(days=95))
    assert await house.value("SELECT period_number FROM subscription") == 4
    assert (await house.event_types()).count("subscription.renewed") == 3


async def test_one_accounts_many_renewals_do_not_hold_up_anothers(house: House) -> None:
    async with house.app.transaction("crowd") as conn:
        await conn.executemany(
            "INSERT INTO due (account_id, kind, reference, due_at) VALUES ($1, 'renew_subscription', $2, $3)",
            [(house.account, house.ids.new(), house.clock.wall()) for _ in range(100)]
            + [(house.ids.new(), house.ids.new(), house.clock.wall())],
        )
    items, _ = await house.worker.claim(BEFORE_ALL)
    assert len({item.account for item in items}) == 2


async def test_the_price_of_a_running_subscription_does_not_follow_the_catalogue(house: House) -> None:
    from gatefold.billing.v1 import catalogue_pb2

    price = await house.price()
    await house.subscribe(price, house.ids.new())
    with house.staff():
        await house.catalogue.ArchivePrice(catalogue_pb2.ArchivePriceRequest(id=price), None)
    await house.until(MONTH)
    assert await house.rows("SELECT amount_minor FROM invoice_line") == [(990,), (990,)]


async def test_a_worker_that_comes_late_does_not_charge_before_the_next_try_is_due(house: House) -> None:
    await house.subscribe(await house.price(), house.ids.new())
    await swap_card(house, "4000000000000341")
    house.clock.advance(MONTH)
    async with house.app.transaction("keep_events") as conn:
        await conn.execute("DELETE FROM due WHERE kind = 'forget_stripe_event'")
    (late,) = (await house.worker.claim(BEFORE_ALL))[0]
    await house.parts.due_handlers[late.kind](late)
    await house.parts.due_handlers[late.kind](late)
    assert await house.value("SELECT count(*) FROM payment WHERE off_session") == 1
    async with house.app.transaction("read_due", read_only=True) as conn:
        (row,) = await conn.fetch("SELECT kind, due_at FROM due WHERE account_id = $1", house.account)
    assert (row["kind"], row["due_at"]) == ("renew_subscription", datetime(2026, 2, 2, tzinfo=UTC))
