"""Shows what verdicts keep from being charged: for as long as they hold, whom they are about, and nobody else."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from gatefold.activity.v1 import activity_pb2
from gatefold.billing.v1 import checkout_pb2

from libs import ids
from libs.errors import GatefoldError
from libs.telemetry import Telemetry
from libs.verdicts.held import HeldVerdicts
from services.billing.usecases import holds
from tests.integration.services.billing.conftest import HIDDEN, House
from tests.support.verdicts import HOUR, later, verdict

pytestmark = pytest.mark.case("edge-15")

MONTH = timedelta(days=31)


@pytest.fixture
def held(house: House) -> HeldVerdicts:
    return HeldVerdicts(
        house.app,
        house.jobs,
        holds.SCOPES,
        holds.ACTIONS,
        clock=house.clock,
        telemetry=Telemetry("billing"),
        begun=house.parts.holds.begun,
    )


def about(
    house: House, subject: UUID, *, account: UUID | None = None, lasts: timedelta = HOUR, **more: Any
) -> activity_pb2.Verdict:
    """Returns a verdict on a reader, in the house's account where no other is given."""
    entity = HIDDEN.of("actor", ids.encode("subj", subject))
    made = verdict("actor", entity, account or house.account, house.clock.wall(), lasts=lasts)
    for name, value in more.items():
        setattr(made, name, value)
    return made


async def refusal(house: House, price: str, subject: UUID, key: str | None = None) -> str | None:
    try:
        await house.checkout(price, subject, key)
    except GatefoldError as error:
        return error.reason
    return None


async def charges(house: House) -> int:
    return sum(intent["status"] == "succeeded" for intent in await house.made("payment_intents"))


async def test_no_payment_of_a_reader_begins_while_a_verdict_holds(house: House, held: HeldVerdicts) -> None:
    price, subject, other = await house.price(), house.ids.new(), house.ids.new()
    told = about(house, subject)
    await held.obey([told, told])
    assert await refusal(house, price, subject, "k") == "payment_held"
    assert await refusal(house, price, other) is None
    assert len(await house.made("payment_intents")) == 1
    house.clock.advance(HOUR)
    # The same request goes through with the key that it had.
    assert await refusal(house, price, subject, "k") is None


async def test_a_person_who_says_legit_lets_payments_through_at_once(house: House, held: HeldVerdicts) -> None:
    price, subject = await house.price(), house.ids.new()
    told = about(house, subject)
    lifted = later(told, revoked=True)
    await held.obey([told])
    await held.obey([lifted])
    # What is heard late, by the other way, changes nothing.
    await held.obey([told])
    assert await refusal(house, price, subject) is None


async def test_a_verdict_of_the_platform_holds_in_every_account_and_an_accounts_in_its_own(
    house: House, held: HeldVerdicts
) -> None:
    price, everywhere, elsewhere = await house.price(), house.ids.new(), house.ids.new()
    await held.obey([about(house, everywhere, account_id=""), about(house, elsewhere, account=house.ids.new())])
    assert await refusal(house, price, everywhere) == "payment_held"
    assert await refusal(house, price, elsewhere) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"shadow": True},
        {"revoked": True},
        {"action": activity_pb2.Verdict.ACTION_CHALLENGE},
        {"action": activity_pb2.Verdict.ACTION_THROTTLE},
        {"lasts": timedelta(0)},
        {"id": "verdict_x"},
        {"account_id": "acct_x"},
        {"scope": "session"},
        {"entity_hash": b"short"},
    ],
)
async def test_what_is_not_to_hold_a_payment_holds_none(
    house: House, held: HeldVerdicts, changes: dict[str, Any]
) -> None:
    price, subject = await house.price(), house.ids.new()
    await held.obey([about(house, subject, **changes)])
    assert await refusal(house, price, subject) is None


@pytest.mark.parametrize("everywhere", [False, True])
async def test_a_payment_that_was_begun_is_withdrawn_before_it_can_be_made(
    house: House, held: HeldVerdicts, everywhere: bool
) -> None:
    price, subject, other = await house.price(), house.ids.new(), house.ids.new()
    begun, spared = await house.checkout(price, subject), await house.checkout(price, other)
    told = about(house, subject)
    if everywhere:
        told.account_id = ""
    await held.obey([told])
    await house.work()
    assert (await house.shown(begun, subject)).state == checkout_pb2.CHECKOUT_STATE_EXPIRED
    # Its secret opens nothing any more; somebody else's does.
    assert "error" in await house.confirm(begun)
    assert "error" not in await house.confirm(spared)
    assert await charges(house) == 1
    house.clock.advance(HOUR)
    again = await house.checkout(price, subject)
    assert again.id != begun.id
    await house.confirm(again)
    assert await charges(house) == 2


async def test_a_payment_is_not_begun_when_the_verdict_came_after_it_was_written_down(
    house: House, held: HeldVerdicts
) -> None:
    price, subject = await house.price(), house.ids.new()
    await house.fault("lost_request", "/v1/customers")
    assert await refusal(house, price, subject, "k") == "payment_provider_unavailable"
    await held.obey([about(house, subject)])
    assert await refusal(house, price, subject, "k") == "payment_held"
    await house.work()
    assert await house.made("payment_intents") == []
    assert await house.rows("SELECT state, error_reason FROM payment") == [("failed", "payment_held")]
    house.clock.advance(HOUR)
    # The same request goes through with the key that it had, also after it was written down once.
    assert await refusal(house, price, subject, "k") is None
    assert len(await house.made("payment_intents")) == 1


async def test_a_renewal_waits_while_its_reader_is_held_and_is_charged_when_they_are_not(
    house: House, held: HeldVerdicts
) -> None:
    subject = house.ids.new()
    await house.subscribe(await house.price(), subject)
    house.clock.advance(MONTH - HOUR)
    told = about(house, subject, lasts=timedelta(days=30))
    await held.obey([told])
    await house.until(2 * HOUR)
    assert await charges(house) == 1
    assert await house.value("SELECT state FROM subscription") == "active"
    await held.obey([later(told, revoked=True)])
    await house.until(HOUR)
    assert await charges(house) == 2
    assert await house.value("SELECT period_number FROM subscription") == 2


async def test_a_renewal_is_never_held_beyond_the_access_that_was_paid(house: House, held: HeldVerdicts) -> None:
    subject = house.ids.new()
    await house.subscribe(await house.price(), subject)
    house.clock.advance(MONTH - HOUR)
    await held.obey([about(house, subject, lasts=timedelta(days=60))])
    for _ in range(24):
        await house.until(HOUR)
        assert await charges(house) == 1
    await house.until(2 * HOUR)
    assert await charges(house) == 2
    assert await house.event_types() == [
        "invoice.paid", "subscription.activated", "invoice.paid", "subscription.renewed",
    ]  # fmt: skip


async def test_a_card_that_is_held_is_not_charged_whosever_it_is(house: House, held: HeldVerdicts) -> None:
    price = await house.price()
    for _ in range(2):
        await house.subscribe(price, house.ids.new())
    await house.subscribe(price, house.ids.new(), "5555555555554444")
    await house.work()
    cards = await house.rows("SELECT card_hash FROM payment_method ORDER BY created_at, last4")
    assert cards[0] == cards[1] != cards[2]
    house.clock.advance(MONTH - HOUR)
    await held.obey([verdict("target", cards[0][0], house.account, house.clock.wall(), lasts=timedelta(hours=3))])
    await house.until(HOUR)
    assert await charges(house) == 4
    await house.until(3 * HOUR)
    assert await charges(house) == 6


async def test_what_is_over_is_forgotten(house: House, held: HeldVerdicts) -> None:
    told = about(house, house.ids.new())
    shortened = later(told, expires_at=house.clock.wall() + timedelta(minutes=1))
    await held.obey([told])
    await held.obey([shortened])
    house.clock.advance(timedelta(minutes=2))
    await held.forget()
    # As long as an earlier state could come back.
    own = f"SELECT count(*) FROM held_verdict WHERE account_id = '{house.account}'"
    assert await house.value(own) == 1
    house.clock.advance(HOUR)
    await held.forget()
    assert await house.value(own) == 0
