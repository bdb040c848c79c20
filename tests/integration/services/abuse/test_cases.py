"""Review: who holds a case, what is decided, what follows, and what two people are needed for."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from gatefold.abuse.v1 import case_pb2
from gatefold.events.v1 import envelope_pb2

from libs import ids
from libs.due import Due
from libs.errors import GatefoldError
from libs.postgres import PLATFORM
from services.abuse.domain.case import ActionKind, CaseState, Judgement, Origin, Wanted
from services.abuse.domain.detector import Action, Mode
from services.abuse.domain.finding import Entity, Scope
from services.abuse.domain.verdict import REVIEW, Verdict, request_key
from services.abuse.repository import verdicts
from services.abuse.usecases.appeals import DUE_KIND
from services.abuse.usecases.suppressed import Suppressed
from services.abuse.usecases.watch import Sample
from tests.support.abuse import Desk, person
from tests.support.activities import hashed

pytestmark = pytest.mark.case("edge-18")

DAY = 86_400


async def in_force(desk: Desk, account: UUID, name: str, scope: Scope = Scope.ADDRESS) -> list[Verdict]:
    async with desk.database.app.tenant(account, "look") as conn:
        return await verdicts.in_force(conn, account, scope, hashed(scope.value, name))


async def detail(desk: Desk, account: UUID | None, case: UUID) -> case_pb2.CaseDetail:
    return await desk.cases.get_case(desk.who(account), case)


async def events(desk: Desk, account: UUID) -> list[envelope_pb2.Envelope]:
    async with desk.database.jobs.transaction("look", read_only=True) as conn:
        rows = await conn.fetch("SELECT envelope FROM outbox WHERE account_id = $1 ORDER BY position", account)
    return [envelope_pb2.Envelope.FromString(row["envelope"]) for row in rows]


class TestOpening:
    async def test_a_grave_verdict_opens_a_case_with_all_that_led_to_it(self, desk: Desk, account: UUID) -> None:
        case = await desk.case_of(account, "attacker", seen={"user_agent": "program", "target": "someone"})
        shown = await detail(desk, account, case)
        assert shown.case.state == case_pb2.CASE_STATE_OPEN
        assert shown.case.origin == case_pb2.CASE_ORIGIN_VERDICT
        assert shown.case.severity == 3
        assert list(shown.case.reasons) == ["credential_stuffing", "targets"]
        assert [step.kind for step in shown.timeline] == ["opened", "verdict"]
        [verdict] = shown.verdicts
        assert [(held.signal, held.value, held.threshold) for held in verdict.evidence] == [
            ("stuffing-address.targets", 12.0, 8.0)
        ]
        assert verdict.request_id == "req-attacker"
        assert {(item.scope, item.entity) for item in shown.linked} == {
            ("user_agent", hashed("user_agent", "program").hex()),
            ("target", hashed("target", "someone").hex()),
        }

    async def test_a_mild_verdict_opens_none(self, desk: Desk, account: UUID) -> None:
        await desk.store(desk.decision(account, "odd", action=Action.CHALLENGE))
        assert not (await desk.cases.list_cases(desk.who(account))).data

    async def test_an_entity_has_one_open_case_that_grows(self, desk: Desk, account: UUID) -> None:
        case = await desk.case_of(account, "attacker")
        await desk.store(
            desk.decision(account, "attacker", after=60, detector="scraping-address", reasons=("scraping",))
        )
        shown = await detail(desk, account, case)
        assert len(shown.verdicts) == 2
        assert list(shown.case.detectors) == ["stuffing-address", "scraping-address"]
        assert shown.case.reasons[0] == "scraping"
        assert len((await desk.cases.list_cases(desk.who(account))).data) == 1

    async def test_what_was_judged_abuse_lately_is_not_asked_about_again(self, desk: Desk, account: UUID) -> None:
        case = await desk.case_of(account, "attacker")
        await desk.cases.decide(desk.who(account), case, Judgement.ABUSE, 1.0, "")
        await desk.store(desk.decision(account, "attacker", after=3600))
        assert len((await detail(desk, account, case)).verdicts) == 2
        await desk.store(desk.decision(account, "attacker", after=8 * DAY))
        assert len((await desk.cases.list_cases(desk.who(account), Wanted(state=CaseState.OPEN))).data) == 1

    async def test_a_few_of_those_in_whom_nothing_was_found_are_looked_at(self, desk: Desk, account: UUID) -> None:
        at = int(desk.clock.wall().timestamp() * 1000)
        text = ids.encode("acct", account)
        samples = [Sample(text, 7, Scope.ACTOR, hashed("actor", "reader"), at)]
        await desk.store(samples=samples)
        await desk.store(samples=samples)
        await desk.store(samples=[Sample(text, 7, Scope.ACTOR, hashed("actor", "another"), at)])
        page = await desk.cases.list_cases(desk.who(account), Wanted(origin=Origin.AUDIT))
        assert [(case.severity, case.entity) for case in page.data] == [(0, hashed("actor", "reader").hex())]

    async def test_nobody_who_is_refused_anyway_is_picked(self, desk: Desk, account: UUID) -> None:
        await desk.store(desk.decision(account, "attacker", action=Action.CHALLENGE))
        sample = Sample(ids.encode("acct", account), 8, Scope.ADDRESS, hashed("address", "attacker"), 1)
        await desk.store(samples=[sample])
        assert not (await desk.cases.list_cases(desk.who(account))).data


class TestListing:
    async def test_filters_and_pages(self, desk: Desk, account: UUID) -> None:
        for number in range(5):
            await desk.store(desk.decision(account, f"bot {number}"))
        await desk.store(
            desk.decision(account, "key", scope=Scope.ACTOR, action=Action.REVOKE, reasons=("api_key_leak",))
        )
        who = desk.who(account)
        assert [case.scope for case in (await desk.cases.list_cases(who, Wanted(severity=4))).data] == ["actor"]
        assert len((await desk.cases.list_cases(who, Wanted(reason="api_key_leak"))).data) == 1
        assert len((await desk.cases.list_cases(who, Wanted(scope="address", detector="stuffing-address"))).data) == 5
        assert not (await desk.cases.list_cases(who, Wanted(state=CaseState.DECIDED))).data
        first = await desk.cases.list_cases(who, limit=4)
        rest = await desk.cases.list_cases(who, limit=4, cursor=first.next_cursor)
        assert len({case.id for case in (*first.data, *rest.data)}) == 6
        assert rest.next_cursor == ""

    async def test_cases_that_share_entities_and_reasons_are_similar(self, desk: Desk, account: UUID) -> None:
        first = await desk.case_of(account, "one", seen={"user_agent": "program"})
        second = await desk.case_of(account, "two", seen={"user_agent": "program"})
        await desk.case_of(account, "three", reasons=("scraping",))
        shown = await detail(desk, account, second)
        assert [(other.case.id, other.shared_entities, other.shared_reasons) for other in shown.similar] == [
            (ids.encode("case", first), 1, 2)
        ]
        [agent] = [item for item in shown.linked if item.scope == "user_agent"]
        assert agent.other_cases == 1


class TestClaiming:
    async def test_one_holds_a_case_until_its_time_is_over(self, desk: Desk, account: UUID) -> None:
        case = await desk.case_of(account, "attacker")
        ada, bob = desk.who(account, "ada"), desk.who(account, "bob")
        assert (await desk.cases.claim(ada, case)).claimed_by == person("ada")
        for refused in (desk.cases.claim(bob, case), desk.cases.release(bob, case)):
            with pytest.raises(GatefoldError, match="case_claimed"):
                await refused
        with pytest.raises(GatefoldError, match="case_claimed"):
            await desk.cases.decide(bob, case, Judgement.LEGIT, 1.0, "")
        with pytest.raises(GatefoldError, match="case_claimed"):
            await desk.actions.act(bob, case, ActionKind.LIFT, 0)
        desk.clock.advance(timedelta(minutes=20))
        renewed = await desk.cases.claim(ada, case)
        assert renewed.claimed_until.ToDatetime(tzinfo=desk.clock.wall().tzinfo) - desk.clock.wall() == timedelta(
            minutes=30
        )
        desk.clock.advance(timedelta(minutes=31))
        assert (await desk.cases.claim(bob, case)).claimed_by == person("bob")

    async def test_a_case_that_is_given_back_is_free(self, desk: Desk, account: UUID) -> None:
        case = await desk.case_of(account, "attacker")
        await desk.cases.claim(desk.who(account, "ada"), case)
        assert (await desk.cases.release(desk.who(account, "ada"), case)).claimed_by == ""
        await desk.cases.claim(desk.who(account, "bob"), case)

    async def test_of_many_who_claim_at_once_one_gets_it(self, desk: Desk, account: UUID) -> None:
        case = await desk.case_of(account, "attacker")
        tried = await asyncio.gather(
            *(desk.cases.claim(desk.who(account, f"person {number}"), case) for number in range(12)),
            return_exceptions=True,
        )
        assert sum(isinstance(one, case_pb2.Case) for one in tried) == 1
        assert {one.reason for one in tried if isinstance(one, GatefoldError)} == {"case_claimed"}


class TestDeciding:
    async def test_legit_lifts_at_once_and_keeps_the_detector_away_for_a_month(self, desk: Desk, account: UUID) -> None:
        case = await desk.case_of(account, "office")
        suppressed = Suppressed(desk.database.jobs, desk.clock)
        await suppressed.refresh()
        decided = await desk.cases.decide(desk.who(account), case, Judgement.LEGIT, 0.9, "The office of a school.")
        assert decided.judgement == case_pb2.JUDGEMENT_LEGIT
        assert await in_force(desk, account, "office") == []
        await desk.verdicts.announce()
        assert [(verdict.revoked, verdict.revision) for verdict in await desk.told()][-1] == (True, 2)
        office = Entity(Scope.ADDRESS, hashed("address", "office"), ids.encode("acct", account))
        assert office in await suppressed.refresh()
        now = desk.clock.wall()
        assert suppressed.suppressed(office, "stuffing-address", now + timedelta(days=29))
        assert not suppressed.suppressed(office, "stuffing-address", now + timedelta(days=31))
        assert not suppressed.suppressed(office, "scraping-address", now)
        assert await desk.store(desk.decision(account, "office", after=60)) == []

    async def test_another_judgement_takes_its_place_with_all_that_follows(self, desk: Desk, account: UUID) -> None:
        case = await desk.case_of(account, "attacker")
        who = desk.who(account)
        await desk.cases.decide(who, case, Judgement.LEGIT, 1.0, "")
        await desk.cases.decide(who, case, Judgement.ABUSE, 1.0, "It went on.")
        assert len(await desk.store(desk.decision(account, "attacker", after=60))) == 1
        [counted] = (await desk.cases.statistics(who, 1)).detectors
        assert (counted.precision.labels, counted.precision.abuse) == (1, 1)

    async def test_unsure_counts_for_nobody(self, desk: Desk, account: UUID) -> None:
        case = await desk.case_of(account, "attacker")
        await desk.cases.decide(desk.who(account), case, Judgement.UNSURE, 0.5, "")
        assert not (await desk.cases.statistics(desk.who(account), 1)).detectors
        assert len(await in_force(desk, account, "attacker")) == 1

    @pytest.mark.parametrize(
        ("note", "reason"),
        [
            ("mail ada@example.com", "note_personal"),
            ("came from 192.0.2.44", "note_personal"),
            ("came from 2001:db8:0:1::7", "note_personal"),
            ("rang +44 20 7946 0958", "note_personal"),
            ("x" * 501, "note_too_long"),
        ],
    )
    async def test_a_note_holds_nothing_personal(self, desk: Desk, account: UUID, note: str, reason: str) -> None:
        case = await desk.case_of(account, "attacker")
        with pytest.raises(GatefoldError, match=reason):
            await desk.cases.decide(desk.who(account), case, Judgement.ABUSE, 1.0, note)

    async def test_many_are_decided_at_once_and_each_ends_by_itself(self, desk: Desk, account: UUID) -> None:
        cases = [ids.encode("case", await desk.case_of(account, f"bot {number}")) for number in range(3)]
        await desk.cases.claim(desk.who(account, "bob"), ids.decode("case", cases[1]))
        missing = ids.encode("case", desk.ids.new())
        answer = await desk.cases.decide_many(
            desk.who(account, "ada"), [*cases, missing, "case_x"], Judgement.ABUSE, 1.0, "One campaign."
        )
        assert [(one.decided, one.reason) for one in answer.data] == [
            (True, ""),
            (False, "case_claimed"),
            (True, ""),
            (False, "case_not_found"),
            (False, "id_malformed"),
        ]


class TestActing:
    async def test_a_lift_holds_for_a_day_and_is_undone(self, desk: Desk, account: UUID) -> None:
        case = await desk.case_of(account, "attacker", seconds=2 * DAY)
        who = desk.who(account)
        action = await desk.actions.act(who, case, ActionKind.LIFT, 0)
        assert action.state == case_pb2.ACTION_STATE_DONE
        assert await in_force(desk, account, "attacker") == []
        assert await desk.store(desk.decision(account, "attacker", after=60)) == []
        undone = await desk.actions.undo(who, case, ids.decode("cact", action.id))
        assert undone.state == case_pb2.ACTION_STATE_UNDONE
        [verdict] = await in_force(desk, account, "attacker")
        assert verdict.revision == 3
        assert len(await desk.store(desk.decision(account, "attacker", after=120))) == 1

    async def test_an_extension_is_undone_to_what_was(self, desk: Desk, account: UUID) -> None:
        case = await desk.case_of(account, "attacker")
        who = desk.who(account)
        [before] = await in_force(desk, account, "attacker")
        action = await desk.actions.act(who, case, ActionKind.EXTEND, 2 * DAY)
        [longer] = await in_force(desk, account, "attacker")
        assert longer.expires_at == desk.clock.wall() + timedelta(days=2)
        await desk.actions.undo(who, case, ids.decode("cact", action.id))
        [again] = await in_force(desk, account, "attacker")
        assert again.expires_at == before.expires_at

    async def test_a_block_by_people_is_told_and_taken_back(self, desk: Desk, account: UUID) -> None:
        case = await desk.case_of(account, "attacker")
        who = desk.who(account)
        action = await desk.actions.act(who, case, ActionKind.BLOCK, DAY)
        assert REVIEW in {verdict.detector for verdict in await in_force(desk, account, "attacker")}
        await desk.actions.undo(who, case, ids.decode("cact", action.id))
        assert REVIEW not in {verdict.detector for verdict in await in_force(desk, account, "attacker")}
        await desk.verdicts.announce()
        told = [verdict for verdict in await desk.told() if verdict.reasons[:1] == [REVIEW]]
        # One that changed before it was told is told as it is.
        assert {verdict.revoked for verdict in told} == {True}

    @pytest.mark.parametrize(
        ("kind", "scope", "seconds"),
        [
            (ActionKind.REVOKE, Scope.ACTOR, 3600),
            (ActionKind.BLOCK, Scope.ADDRESS, 8 * DAY),
            (ActionKind.EXTEND, Scope.ADDRESS, 8 * DAY),
        ],
    )
    async def test_what_hurts_takes_two_people(
        self, desk: Desk, account: UUID, kind: ActionKind, scope: Scope, seconds: int
    ) -> None:
        case = await desk.case_of(account, "attacker", scope=scope)
        ada, bob = desk.who(account, "ada"), desk.who(account, "bob")
        before = await in_force(desk, account, "attacker", scope)
        action = await desk.actions.act(ada, case, kind, seconds)
        assert action.state == case_pb2.ACTION_STATE_WAITING
        assert await in_force(desk, account, "attacker", scope) == before
        assert await desk.actions.act(bob, case, kind, seconds) == action
        with pytest.raises(GatefoldError, match="approval_own"):
            await desk.actions.approve(ada, case, ids.decode("cact", action.id))
        done = await desk.actions.approve(bob, case, ids.decode("cact", action.id))
        assert (done.state, done.approved_by) == (case_pb2.ACTION_STATE_DONE, person("bob"))
        assert await in_force(desk, account, "attacker", scope) != before
        with pytest.raises(GatefoldError, match="action_not_waiting"):
            await desk.actions.approve(bob, case, ids.decode("cact", action.id))

    async def test_nobody_agrees_to_what_was_asked_yesterday(self, desk: Desk, account: UUID) -> None:
        case = await desk.case_of(account, "key", scope=Scope.ACTOR)
        action = await desk.actions.act(desk.who(account, "ada"), case, ActionKind.REVOKE, 60)
        desk.clock.advance(timedelta(hours=25))
        with pytest.raises(GatefoldError, match="action_not_waiting"):
            await desk.actions.approve(desk.who(account, "bob"), case, ids.decode("cact", action.id))
        again = await desk.actions.act(desk.who(account, "ada"), case, ActionKind.REVOKE, 60)
        assert again.id != action.id

    async def test_what_cannot_be_done_is_refused(self, desk: Desk, account: UUID) -> None:
        case = await desk.case_of(account, "attacker", seconds=60)
        who = desk.who(account)
        with pytest.raises(GatefoldError, match="action_scope"):
            await desk.actions.act(who, case, ActionKind.REVOKE, 60)
        with pytest.raises(GatefoldError, match="action_seconds"):
            await desk.actions.act(who, case, ActionKind.BLOCK, 0)
        desk.clock.advance(timedelta(seconds=61))
        await desk.verdicts.expire()
        with pytest.raises(GatefoldError, match="verdict_not_active"):
            await desk.actions.act(who, case, ActionKind.LIFT, 0)
        with pytest.raises(GatefoldError, match="case_action_not_found"):
            await desk.actions.undo(who, case, desk.ids.new())


class TestPrecision:
    async def test_a_detector_that_errs_is_only_noted_where_it_errs(self, desk: Desk, account: UUID) -> None:
        who, elsewhere = desk.who(account), desk.ids.new()
        for number in range(20):
            await desk.store(desk.decision(account, f"office {number}"))
        for case in (await desk.cases.list_cases(who, limit=100)).data[:19]:
            await desk.cases.decide(who, ids.decode("case", case.id), Judgement.LEGIT, 1.0, "")
        [early] = await desk.store(desk.decision(account, "early"))
        assert not early.shadow
        last = (await desk.cases.list_cases(who, Wanted(state=CaseState.OPEN))).data[-1]
        await desk.cases.decide(who, ids.decode("case", last.id), Judgement.LEGIT, 1.0, "")
        [late] = await desk.store(desk.decision(account, "late"))
        assert late.shadow
        [there] = await desk.store(desk.decision(elsewhere, "late"))
        assert not there.shadow
        [counted] = (await desk.cases.statistics(who, 1)).detectors
        assert counted.demoted
        assert counted.precision.upper < 0.8

    async def test_a_tuned_detector_begins_anew(self, desk: Desk, account: UUID) -> None:
        await self.test_a_detector_that_errs_is_only_noted_where_it_errs(desk, account)
        held = {one.name: one for one in (await desk.detectors.list_detectors()).data}["stuffing-address"]
        assert held.demoted_accounts >= 1
        desk.clock.advance(timedelta(seconds=1))
        steps = {"targets": [[10.0, 2.0], [20.0, 9.0]]}
        with pytest.raises(GatefoldError, match="detector_shadow_first"):
            await desk.detectors.tune("stuffing-address", held.revision, Mode.ENFORCE, steps, person("olga"))
        tried = await desk.detectors.tune("stuffing-address", held.revision, Mode.SHADOW, steps, person("olga"))
        assert (tried.demoted_accounts, tried.precision.labels) == (0, 0)
        assert tried.rule_version != held.rule_version
        with pytest.raises(GatefoldError, match="detector_changed"):
            await desk.detectors.tune("stuffing-address", held.revision, Mode.ENFORCE, {}, person("olga"))
        real = await desk.detectors.tune("stuffing-address", tried.revision, Mode.ENFORCE, {}, person("olga"))
        [signal] = [signal for signal in real.signals if signal.name == "targets"]
        assert [(step.threshold, step.weight) for step in signal.steps] == [(10.0, 2.0), (20.0, 9.0)]
        for name, wrong, reason in (
            ("nothing", {}, "detector_not_found"),
            ("stuffing-address", {"targets": [[5.0, 1.0], [3.0, 2.0]]}, "detector_steps"),
            ("stuffing-address", {"nothing": [[5.0, 1.0]]}, "detector_steps"),
        ):
            with pytest.raises(GatefoldError, match=reason):
                await desk.detectors.tune(
                    name, real.revision if name != "nothing" else 0, Mode.SHADOW, wrong, person("olga")
                )


class TestAppeals:
    async def appeal(self, desk: Desk, request: str) -> None:
        await desk.appeals.appeal(f"urn:gatefold:request:{request}")
        now = desk.clock.wall()
        await desk.appeals.work(Due(PLATFORM, DUE_KIND, request_key(request), now, 1))

    async def test_an_appeal_opens_a_case_once(self, desk: Desk, account: UUID) -> None:
        [mild] = await desk.store(desk.decision(account, "reader", action=Action.CHALLENGE))
        text = ids.encode("verdict", mild.id)
        await desk.store(refused=[("req-refused", text), ("req-another", text), ("forged", "verdict_x")])
        for request in ("req-refused", "req-another", "req-refused"):
            await self.appeal(desk, request)
        [case] = (await desk.cases.list_cases(desk.who(account))).data
        assert case.appealed
        assert case.origin == case_pb2.CASE_ORIGIN_APPEAL
        shown = await detail(desk, account, ids.decode("case", case.id))
        assert [step.kind for step in shown.timeline] == ["opened", "appealed"]
        assert (await desk.cases.statistics(desk.who(account), 1)).appeals == 1

    async def test_an_appeal_comes_into_the_open_case(self, desk: Desk, account: UUID) -> None:
        case = await desk.case_of(account, "reader")
        [verdict] = await in_force(desk, account, "reader")
        await desk.store(refused=[("req-open", ids.encode("verdict", verdict.id))])
        await self.appeal(desk, "req-open")
        assert (await detail(desk, account, case)).case.appealed

    async def test_an_unknown_request_leaves_nothing_behind(self, desk: Desk, account: UUID) -> None:
        await self.appeal(desk, "req-unknown")
        async with desk.database.app.transaction("look", read_only=True) as conn:
            assert await conn.fetchval("SELECT count(*) FROM due WHERE kind = $1", DUE_KIND) == 0
        assert not (await desk.cases.list_cases(desk.who(account))).data


async def test_every_step_is_an_event_without_a_gap_and_without_a_note(desk: Desk, account: UUID) -> None:
    case = await desk.case_of(account, "attacker", scope=Scope.ACTOR)
    ada, bob = desk.who(account, "ada"), desk.who(account, "bob")
    await desk.cases.claim(ada, case)
    await desk.cases.release(ada, case)
    action = await desk.actions.act(ada, case, ActionKind.REVOKE, 60)
    await desk.actions.approve(bob, case, ids.decode("cact", action.id))
    await desk.actions.undo(bob, case, ids.decode("cact", action.id))
    await desk.cases.decide(ada, case, Judgement.ABUSE, 1.0, "a note that stays here")
    found = await events(desk, account)
    assert [event.type for event in found] == [
        "case.opened",
        "case.verdict",
        "case.claimed",
        "case.released",
        "case.action_requested",
        "case.action_taken",
        "case.action_undone",
        "case.decided",
    ]
    assert [event.sequence for event in found] == list(range(1, 9))
    assert {event.aggregate_id for event in found} == {ids.encode("case", case)}
    assert [event.actor for event in found[2:6]] == [person("ada")] * 3 + [person("bob")]
    assert all(b"a note" not in event.SerializeToString() for event in found)
