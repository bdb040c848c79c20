"""Entitlements on a real database: what billing's events open and close, the paywall's answer, announcements."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from gatefold.billing.v1 import event_pb2 as billing_event_pb2
from gatefold.events.v1 import envelope_pb2
from gatefold.subscriber.v1 import entitlement_pb2, event_pb2, subscriber_pb2

from libs import ids
from libs.caller import CallerKind
from libs.errors import GatefoldError, Kind
from libs.events.event import Event

from .conftest import House

START = datetime(2026, 1, 1, tzinfo=UTC)
MONTH = timedelta(days=31)
SUBSCRIPTION = UUID(int=7)


async def reader(house: House, email: str = "mei@example.com") -> UUID:
    with house.staff():
        request = subscriber_pb2.CreateSubscriberRequest(email=email)
        return ids.decode("subj", (await house.subscriber_rpc.CreateSubscriber(request, None)).id)


async def subscription(
    house: House,
    subject: UUID,
    kind: str = "activated",
    *,
    number: int = 1,
    features: tuple[str, ...] = ("premium",),
    until: datetime = START + MONTH,
    subscription_id: UUID = SUBSCRIPTION,
    sequence: int = 1,
) -> None:
    data = billing_event_pb2.SubscriptionChanged(
        subscription_id=ids.encode("sub", subscription_id),
        subscriber_id=ids.encode("subj", subject),
        features=features,
        period_number=number,
    )
    data.period_start.FromDatetime(START + MONTH * (number - 1))
    data.period_end.FromDatetime(until)
    data.access_until.FromDatetime(until)
    event = Event(
        id=house.ids.new(),
        type=f"subscription.{kind}",
        account=house.account,
        aggregate=("subscription", subscription_id),
        sequence=sequence,
        occurred_at=house.clock.wall(),
        recorded_at=house.clock.wall(),
        actor="service:billing",
        subjects=(subject,),
        live=False,
        data=data,
    )
    with house.service("subscriber"):
        async with house.app.tenant(house.account, "consume") as conn:
            await house.entitlements.take_billing_event(conn, event)


async def decide(house: House, subject: UUID, feature: str = "premium") -> entitlement_pb2.DecideAccessResponse:
    with house.reader(subject):
        return await house.entitlement_rpc.DecideAccess(entitlement_pb2.DecideAccessRequest(feature=feature), None)


async def features_announced(house: House) -> list[list[str]]:
    async with house.jobs.transaction("read_outbox") as conn:
        rows = await conn.fetch(
            "SELECT envelope FROM outbox WHERE account_id = $1 AND type = 'entitlement.changed' ORDER BY sequence",
            house.account,
        )
    found = []
    for row in rows:
        data = Event.from_envelope(envelope_pb2.Envelope.FromString(row["envelope"])).data
        assert isinstance(data, event_pb2.EntitlementChanged)
        found.append(list(data.features))
    return found


async def test_a_paid_subscription_opens_its_features_until_its_end(house: House) -> None:
    subject = await reader(house)
    before = await decide(house, subject)
    assert (before.allowed, before.reason) == (False, "no_entitlement")
    await subscription(house, subject, features=("premium", "archive"))
    for feature in ("premium", "archive"):
        answer = await decide(house, subject, feature)
        assert (answer.allowed, answer.reason) == (True, "entitled")
        assert answer.until.ToDatetime(tzinfo=UTC) == START + MONTH
    assert not (await decide(house, subject, "podcast")).allowed
    house.clock.set(START + MONTH)
    after = await decide(house, subject)
    assert (after.allowed, after.reason, after.HasField("until")) == (False, "expired", False)


async def test_the_accounts_own_clock_decides(house: House) -> None:
    subject = await reader(house)
    await subscription(house, subject)
    house.clock.set_offset(house.account, MONTH)
    assert (await decide(house, subject)).reason == "expired"


async def test_taking_an_event_again_changes_nothing(house: House) -> None:
    subject = await reader(house)
    for _ in range(3):
        await subscription(house, subject)
    assert await house.count("SELECT count(*) FROM entitlement") == 1
    assert await features_announced(house) == [["premium"]]


async def test_a_renewal_moves_the_end_without_an_announcement(house: House) -> None:
    subject = await reader(house)
    await subscription(house, subject)
    await subscription(house, subject, "renewed", number=2, until=START + 2 * MONTH, sequence=2)
    house.clock.set(START + MONTH)
    assert (await decide(house, subject)).until.ToDatetime(tzinfo=UTC) == START + 2 * MONTH
    assert await features_announced(house) == [["premium"]]


async def test_an_ended_subscription_closes_at_once_and_is_announced(house: House) -> None:
    subject = await reader(house)
    await subscription(house, subject)
    house.clock.advance(timedelta(days=3))
    await subscription(house, subject, "ended", until=house.clock.wall(), sequence=2)
    assert (await decide(house, subject)).reason == "expired"
    assert await features_announced(house) == [["premium"], []]
    assert [sequence for _, _, sequence in await house.events("entitlement")] == [1, 2]


async def test_a_change_of_plan_ends_what_the_new_plan_does_not_open(house: House) -> None:
    subject = await reader(house)
    await subscription(house, subject, features=("premium", "archive"))
    house.clock.advance(timedelta(days=1))
    await subscription(house, subject, "renewed", features=("premium", "podcast"), sequence=2)
    assert (await decide(house, subject, "archive")).reason == "expired"
    assert (await decide(house, subject, "podcast")).allowed
    assert await features_announced(house) == [["archive", "premium"], ["podcast", "premium"]]


async def test_one_of_two_subscriptions_is_enough_and_the_longer_one_counts(house: House) -> None:
    subject = await reader(house)
    await subscription(house, subject, until=START + 2 * MONTH)
    await subscription(house, subject, until=START + MONTH, subscription_id=UUID(int=8))
    assert (await decide(house, subject)).until.ToDatetime(tzinfo=UTC) == START + 2 * MONTH
    await subscription(house, subject, "ended", until=START, sequence=2)
    answer = await decide(house, subject)
    assert (answer.allowed, answer.until.ToDatetime(tzinfo=UTC)) == (True, START + MONTH)


async def test_an_end_before_the_beginning_is_taken_as_no_right_at_all(house: House) -> None:
    subject = await reader(house)
    await subscription(house, subject, "ended", until=START - MONTH)
    assert (await decide(house, subject)).reason == "expired"


async def test_a_secret_key_asks_about_any_reader(house: House) -> None:
    subject = await reader(house)
    await subscription(house, subject)
    with house.key():
        request = entitlement_pb2.DecideAccessRequest(feature="premium", subscriber_id=ids.encode("subj", subject))
        assert (await house.entitlement_rpc.DecideAccess(request, None)).allowed
        with pytest.raises(GatefoldError) as raised:
            await house.entitlement_rpc.DecideAccess(entitlement_pb2.DecideAccessRequest(feature="premium"), None)
    assert raised.value.reason == "subscriber_required"


async def test_a_publishable_key_alone_asks_for_an_anonymous_reader(house: House) -> None:
    with house.key(CallerKind.PUBLISHABLE_KEY):
        answer = await house.entitlement_rpc.DecideAccess(entitlement_pb2.DecideAccessRequest(feature="premium"), None)
    assert (answer.allowed, answer.reason) == (False, "anonymous")


async def test_nobody_but_a_secret_key_asks_about_someone_else(house: House) -> None:
    subject, other = await reader(house), await reader(house, "other@example.com")
    request = entitlement_pb2.DecideAccessRequest(feature="premium", subscriber_id=ids.encode("subj", other))
    for serving in (house.reader(subject), house.key(CallerKind.PUBLISHABLE_KEY)):
        with serving, pytest.raises(GatefoldError) as raised:
            await house.entitlement_rpc.DecideAccess(request, None)
        assert (raised.value.kind, raised.value.reason) == (Kind.FORBIDDEN, "subscriber_foreign")


@pytest.mark.parametrize("feature", ["", "Premium", "a b", "x" * 81, "prémium", "a,b"])
async def test_a_name_no_feature_can_have_is_refused(house: House, feature: str) -> None:
    with house.key(CallerKind.PUBLISHABLE_KEY), pytest.raises(GatefoldError) as raised:
        await house.entitlement_rpc.DecideAccess(entitlement_pb2.DecideAccessRequest(feature=feature), None)
    assert raised.value.reason == "feature_malformed"


async def test_the_list_names_each_right_and_its_source(house: House) -> None:
    subject = await reader(house)
    await subscription(house, subject)
    with house.staff():
        request = entitlement_pb2.ListEntitlementsRequest(subscriber_id=ids.encode("subj", subject))
        listed = (await house.entitlement_rpc.ListEntitlements(request, None)).data
        shown = await house.subscriber_rpc.GetSubscriber(
            subscriber_pb2.GetSubscriberRequest(id=ids.encode("subj", subject)), None
        )
    assert [(right.feature, right.source, right.active) for right in listed] == [
        ("premium", ids.encode("sub", SUBSCRIPTION), True)
    ]
    assert list(shown.features) == ["premium"]
    unknown = entitlement_pb2.ListEntitlementsRequest(subscriber_id=ids.encode("subj", UUID(int=1)))
    with house.staff(), pytest.raises(GatefoldError) as raised:
        await house.entitlement_rpc.ListEntitlements(unknown, None)
    assert raised.value.kind is Kind.NOT_FOUND


async def test_the_paywalls_question_is_one_descent_of_the_primary_key(house: House) -> None:
    async with house.app.tenant(house.account, "explain") as conn:
        await conn.execute("SET LOCAL enable_seqscan = off")
        rows = await conn.fetch(
            """
            EXPLAIN SELECT feature, source_id, complimentary, active_from, active_until
            FROM entitlement WHERE account_id = $1 AND subject_id = $2 AND feature = $3
            """,
            house.account,
            UUID(int=1),
            "premium",
        )
        key = await conn.fetchval("SELECT pg_get_indexdef('entitlement_pkey'::regclass)")
    plan = "\n".join(row[0] for row in rows)
    assert "entitlement_pkey" in plan
    assert "feature = 'premium'" in plan.split("Index Cond:")[1].splitlines()[0]
    assert key.endswith("(account_id, subject_id, feature, source_id)")
