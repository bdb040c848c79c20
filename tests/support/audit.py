"""Owns looking for what a journey doubled or lost, whatever was killed on its way."""

import asyncio
from collections import Counter
from datetime import datetime
from typing import Any

import aiohttp

from infra.local.journey import Journey, WebhookReceiver
from infra.local.journey.steps import OWNER, PRICE_MINOR, READER
from tests.support.stack import StackProcess

RENEWALS = 1
SETTLED_SECONDS = 60.0
# Subject lines of the mails that a journey leads to, by receiver, each exactly so often.
MAILS = Counter(
    {
        (OWNER, "You are invited"): 1,
        (READER, "Confirm your address"): 1,
        (READER, "Your receipt"): 1 + RENEWALS,
    }
)
# Webhooks about the reader.
EVENTS = Counter(
    {
        "subscriber.created": 1,
        "subscription.activated": 1,
        "subscription.renewed": RENEWALS,
        "invoice.paid": 1 + RENEWALS,
        "entitlement.changed": 1,
    }
)


async def audit(stack: StackProcess, journey: Journey, receiver: WebhookReceiver) -> list[str]:
    """Returns what is doubled or missing, in words, once nothing of the account is under way any more."""
    found: list[str] = ["nothing was looked at"]
    async with aiohttp.ClientSession() as session:
        try:
            async with asyncio.timeout(SETTLED_SECONDS):
                while found:
                    try:
                        found = await _unfinished(stack, journey, session) or await _look(
                            stack, journey, receiver, session
                        )
                    except aiohttp.ClientError as error:
                        # What is looked at may be the very thing that was killed.
                        found = [f"looking failed: {error}"]
                    if found:
                        await asyncio.sleep(0.25)
        except TimeoutError:
            pass
    return found


async def _unfinished(stack: StackProcess, journey: Journey, session: aiohttp.ClientSession) -> list[str]:
    """What is doubled comes late: moving the clock, if only by a second, answers when all work and events are done."""
    async with session.post(
        f"{stack.endpoints['gateway']}/v1/test_clock/advance",
        headers={"Authorization": f"Bearer {journey.cast.secret_key}"},
        json={"seconds": 1},
    ) as response:
        answer = await response.json(content_type=None)
    return [] if answer.get("drained") else [f"not all is worked off: {answer}"]


async def _look(
    stack: StackProcess, journey: Journey, receiver: WebhookReceiver, session: aiohttp.ClientSession
) -> list[str]:
    return [
        *await _money(stack, journey, session),
        *await _mails(stack, session),
        *_events(receiver, journey.cast.reader),
        *await _staff_view(stack, journey, session),
    ]


async def _money(stack: StackProcess, journey: Journey, session: aiohttp.ClientSession) -> list[str]:
    """At Stripe: as many payments as invoices, of the right amount, and the reader is one customer."""
    intents = await _json(session, f"{stack.endpoints['stripe']}/_sim/objects/payment_intent")
    paid = [item["amount_received"] for item in intents["data"] if item["status"] == "succeeded"]
    customers = (await _json(session, f"{stack.endpoints['stripe']}/_sim/objects/customer"))["data"]
    found = []
    if paid != [PRICE_MINOR] * (1 + RENEWALS):
        found.append(f"Stripe received {paid}")
    ours = [item for item in customers if journey.cast.reader in item["metadata"].values()]
    if len(ours) != 1:
        found.append(f"the reader is {len(ours)} customers at Stripe")
    return found


async def _mails(stack: StackProcess, session: aiohttp.ClientSession) -> list[str]:
    """A mail may be handed over twice under one Message-ID; it is one mail then."""
    mails = (await _json(session, f"{stack.endpoints['mail']}/mails"))["data"]
    once = {mail["message_id"]: (mail["to"], mail["subject"]) for mail in mails}
    counted = Counter(
        key for to, subject in once.values() for key in MAILS if to == key[0] and subject.startswith(key[1])
    )
    ours = [shown for shown in once.values() if shown[0] in (OWNER, READER)]
    return [] if counted == MAILS and len(ours) == MAILS.total() else [f"mails: {sorted(ours)}"]


def _events(receiver: WebhookReceiver, reader: str) -> list[str]:
    """Each event once, each aggregate's from its first on without a gap, and the reader's are all there."""
    bodies = list(receiver.events.values())
    ids = {body["id"] for body in bodies}
    sequences: dict[tuple[str, str], list[int]] = {}
    for body in bodies:
        sequences.setdefault((body["aggregate"]["type"], body["aggregate"]["id"]), []).append(body["sequence"])
    found = [
        f"events of {kind} {name}: {sorted(numbers)}"
        for (kind, name), numbers in sequences.items()
        if sorted(numbers) != list(range(1, len(numbers) + 1))
    ]
    counted = Counter(body["type"] for body in bodies if body["data"].get("subscriber_id") == reader)
    if counted != EVENTS:
        found.append(f"events about the reader: {dict(counted)}")
    if len(ids) != len(bodies):
        found.append("an event was delivered under two ids")
    if receiver.forged:
        found.append(f"{receiver.forged} webhooks with a bad signature")
    return found


async def _staff_view(stack: StackProcess, journey: Journey, session: aiohttp.ClientSession) -> list[str]:
    """What staff see adds up."""
    cast, gateway = journey.cast, stack.endpoints["gateway"]
    headers = {"Authorization": f"Bearer {cast.secret_key}"}

    async def rows(path: str) -> list[Any]:
        return list((await _json(session, gateway + path, headers)).get("data", []))

    subscriptions = await rows(f"/v1/subscriptions?subscriber_id={cast.reader}")
    invoices = await rows(f"/v1/invoices?subscription_id={cast.subscription}")
    entitlements = await rows(f"/v1/subscribers/{cast.reader}/entitlements")
    balances = await rows("/v1/ledger/balances")
    found = []
    if [item["state"] for item in subscriptions] != ["active"]:
        found.append(f"subscriptions: {subscriptions}")
    if sorted(item["number"] for item in invoices if item["state"] == "paid") != ["000001", "000002"]:
        found.append(f"invoices: {invoices}")
    # The first period and its grace would still let the reader in: what counts is the end of the present one.
    ends = [datetime.fromisoformat(item["current_period_end"]) for item in subscriptions]
    rights = [datetime.fromisoformat(item["active_until"]) for item in entitlements if item["active"]]
    if len(rights) != 1 or rights < ends:
        found.append(f"entitlements: {entitlements}")
    debits, credited = (sum(row[side]["amount_minor"] for row in balances) for side in ("debits", "credits"))
    if debits != credited or debits != 2 * (1 + RENEWALS) * PRICE_MINOR:
        found.append(f"ledger: {balances}")
    return found


async def _json(session: aiohttp.ClientSession, url: str, headers: dict[str, str] | None = None) -> Any:
    async with session.get(url, headers=headers) as response:
        return await response.json(content_type=None)
