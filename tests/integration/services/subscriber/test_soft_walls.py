"""Shows whom the paywall calls suspect, and that nobody who paid is refused for it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from gatefold.activity.v1 import activity_pb2
from gatefold.subscriber.v1 import entitlement_pb2

from libs import caller, ids
from libs.caller import Caller, CallerKind
from libs.telemetry import Telemetry
from libs.verdicts.held import HeldVerdicts
from services.subscriber.usecases.soft_walls import ACTIONS, SCOPES
from tests.integration.services.subscriber.conftest import HIDDEN, House
from tests.integration.services.subscriber.test_entitlements import reader, subscription
from tests.support.verdicts import HOUR, later, verdict

pytestmark = pytest.mark.case("edge-15")

HOME = "198.51.100.7"


@pytest.fixture
def held(house: House) -> HeldVerdicts:
    return HeldVerdicts(house.app, house.jobs, SCOPES, ACTIONS, clock=house.clock, telemetry=Telemetry("subscriber"))


async def asked(
    house: House, kind: CallerKind, subject: UUID | None = None, **more: Any
) -> entitlement_pb2.DecideAccessResponse:
    own = kind is CallerKind.SUBSCRIBER
    who = Caller(kind, "actor", house.account, live=False, subject=subject if own else None, **more)
    named = "" if own or subject is None else ids.encode("subj", subject)
    request = entitlement_pb2.DecideAccessRequest(feature="premium", subscriber_id=named)
    with caller.serving(who):
        return await house.entitlement_rpc.DecideAccess(request, None)


def about(house: House, scope: str, text: str, **more: Any) -> activity_pb2.Verdict:
    return verdict(scope, HIDDEN.of(scope, text), house.account, house.clock.wall(), **more)


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_reader_who_looks_like_abuse_is_let_in_all_the_same(
    house: House, held: HeldVerdicts, action: int
) -> None:
    subject, other = await reader(house), await reader(house, "lin@example.com")
    await subscription(house, subject)
    told = about(house, "actor", ids.encode("subj", subject), action=action)
    before = await asked(house, CallerKind.SUBSCRIBER, subject)
    await held.obey([told])
    for answer in (
        await asked(house, CallerKind.SUBSCRIBER, subject),
        await asked(house, CallerKind.SECRET_KEY, subject),
    ):
        assert (answer.allowed, answer.reason, answer.until) == (True, "entitled", before.until)
        assert (before.soft_wall, answer.soft_wall) == (False, True)
    assert not (await asked(house, CallerKind.SUBSCRIBER, other)).soft_wall
    await held.obey([later(told, revoked=True)])
    assert not (await asked(house, CallerKind.SUBSCRIBER, subject)).soft_wall


async def test_a_wall_ends_with_the_verdict(house: House, held: HeldVerdicts) -> None:
    subject = await reader(house)
    await held.obey([about(house, "actor", ids.encode("subj", subject))])
    assert (await asked(house, CallerKind.SUBSCRIBER, subject)).soft_wall
    house.clock.advance(HOUR)
    answer = await asked(house, CallerKind.SUBSCRIBER, subject)
    assert (answer.allowed, answer.reason, answer.soft_wall) == (False, "no_entitlement", False)


@pytest.mark.parametrize(
    ("scope", "text"),
    [("address", HOME), ("network", "198.51.100.0/24"), ("session", ids.encode("ses", UUID(int=7)))],
)
async def test_where_a_reader_comes_from_counts_only_when_they_ask_themselves(
    house: House, held: HeldVerdicts, scope: str, text: str
) -> None:
    subject = await reader(house)
    await held.obey([about(house, scope, text, action=activity_pb2.Verdict.ACTION_THROTTLE)])
    came = {"address": HOME, "session": UUID(int=7)}
    assert (await asked(house, CallerKind.SUBSCRIBER, subject, **came)).soft_wall
    # A publisher's server asks from where it stands.
    assert not (await asked(house, CallerKind.SECRET_KEY, subject, **came)).soft_wall


async def test_an_anonymous_reader_is_told_of_by_their_address(house: House, held: HeldVerdicts) -> None:
    await held.obey([about(house, "address", HOME)])
    walled = await asked(house, CallerKind.PUBLISHABLE_KEY, address=HOME)
    assert (walled.allowed, walled.reason, walled.soft_wall) == (False, "anonymous", True)
    assert not (await asked(house, CallerKind.PUBLISHABLE_KEY, address="203.0.113.9")).soft_wall
    assert not (await asked(house, CallerKind.PUBLISHABLE_KEY)).soft_wall


async def test_an_accounts_verdict_says_nothing_in_another(house: House, held: HeldVerdicts) -> None:
    await held.obey([about(house, "address", HOME), about(house, "address", "192.0.2.8", account_id="")])
    elsewhere = replace(house, account=house.ids.new())
    assert (await asked(elsewhere, CallerKind.PUBLISHABLE_KEY, address="192.0.2.8")).soft_wall
    assert not (await asked(elsewhere, CallerKind.PUBLISHABLE_KEY, address=HOME)).soft_wall


async def test_a_shadow_verdict_builds_no_wall(house: House, held: HeldVerdicts) -> None:
    await held.obey([about(house, "address", HOME, shadow=True), about(house, "address", HOME, lasts=timedelta(0))])
    assert not (await asked(house, CallerKind.PUBLISHABLE_KEY, address=HOME)).soft_wall
