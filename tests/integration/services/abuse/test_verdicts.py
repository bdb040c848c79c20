"""The life of verdicts: written once, told at least once, replaced, over; and nothing is lost in between."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from libs import ids
from libs.errors import GatefoldError
from libs.kill_points import KillPoints
from libs.postgres import PLATFORM
from services.abuse.domain.case import ActionKind
from services.abuse.domain.detector import Action
from services.abuse.domain.finding import Scope
from services.abuse.domain.verdict import REVIEW, State, Verdict
from services.abuse.repository import suppressions, verdicts
from services.abuse.usecases.verdicts import LeaseLostError
from tests.support.abuse import Desk
from tests.support.activities import hashed

pytestmark = pytest.mark.case("edge-15")


class Killed(BaseException):
    """Stands for the end of the process."""


def dying_at(tmp_path: object, point: str) -> KillPoints:
    def die() -> None:
        raise Killed

    return KillPoints("abuse", kill_at=f"abuse:{point}", kill_log=tmp_path / "points", die=die)  # type: ignore[operator]


async def kept(desk: Desk, account: UUID, name: str, scope: Scope = Scope.ADDRESS) -> list[Verdict]:
    async with desk.database.app.tenant(account, "look") as conn:
        return await verdicts.in_force(conn, account, scope, hashed(scope.value, name))


async def test_what_is_decided_twice_is_one_verdict(desk: Desk, account: UUID) -> None:
    decided = desk.decision(account, "attacker")
    first = await desk.store(decided)
    assert len(first) == 1
    assert await desk.store(decided) == []
    assert [verdict.id for verdict in await kept(desk, account, "attacker")] == [first[0].id]


async def test_a_harder_decision_takes_the_place_of_the_one_before(desk: Desk, account: UUID) -> None:
    [mild] = await desk.store(desk.decision(account, "attacker", action=Action.CHALLENGE))
    [hard] = await desk.store(desk.decision(account, "attacker", after=5, detector="stuffing-agent"))
    assert [verdict.id for verdict in await kept(desk, account, "attacker")] == [hard.id]
    await desk.verdicts.announce()
    told = [(verdict.id, verdict.revoked, verdict.revision) for verdict in await desk.told()]
    # What is in force is told before what it replaces is taken back: there is no gap between them.
    assert told[-2:] == [
        (ids.encode("verdict", hard.id), False, 1),
        (ids.encode("verdict", mild.id), True, 2),
    ]


@pytest.mark.parametrize("hard_first", [True, False])
async def test_of_two_decisions_in_one_moment_the_harder_counts(desk: Desk, account: UUID, hard_first: bool) -> None:
    mild, hard = desk.decision(account, "flood", action=Action.TAG), desk.decision(account, "flood")
    await desk.store(*((hard, mild) if hard_first else (mild, hard)))

    assert [verdict.action for verdict in await kept(desk, account, "flood")] == [Action.BLOCK]
    assert await desk.store(mild, hard) == []


async def test_an_old_decision_that_comes_late_replaces_nothing(desk: Desk, account: UUID) -> None:
    [new] = await desk.store(desk.decision(account, "attacker", after=5))
    await desk.store(desk.decision(account, "attacker", action=Action.CHALLENGE))
    assert new.id in {verdict.id for verdict in await kept(desk, account, "attacker")}


async def test_what_is_only_tried_replaces_nothing_that_counts(desk: Desk, account: UUID) -> None:
    [real] = await desk.store(desk.decision(account, "attacker"))
    [tried] = await desk.store(desk.decision(account, "attacker", after=5, shadow=True))
    assert {verdict.id for verdict in await kept(desk, account, "attacker")} == {real.id, tried.id}


async def test_a_tag_is_kept_and_never_told(desk: Desk, account: UUID) -> None:
    await desk.store(desk.decision(account, "odd", action=Action.TAG))
    assert len(await kept(desk, account, "odd")) == 1
    await desk.verdicts.announce()
    assert [verdict for verdict in await desk.told() if verdict.account_id == ids.encode("acct", account)] == []


async def test_a_verdict_about_the_platform_names_no_account(desk: Desk) -> None:
    [made] = await desk.store(desk.decision(None, "everywhere"))
    await desk.verdicts.announce()
    [told] = [verdict for verdict in await desk.told() if verdict.id == ids.encode("verdict", made.id)]
    assert told.account_id == ""
    assert told.entity_hash == hashed("address", "everywhere")
    assert told.scope == "address"
    assert [verdict.id for verdict in await kept(desk, PLATFORM, "everywhere")] == [made.id]


@pytest.mark.parametrize("point", ["after-commit:store_verdicts", "before-publish:announce_verdicts"])
async def test_a_kill_between_commit_and_telling_loses_nothing(
    desk: Desk, account: UUID, tmp_path: object, point: str
) -> None:
    decided = desk.decision(account, "attacker")
    await desk.verdicts.announce()
    await desk.redis.flushall()
    if point.startswith("after-commit"):
        await desk.store(decided)  # the commit; the process ends before anybody is told
    else:
        await desk.store(decided)
        with pytest.raises(Killed):
            await desk.verdicts_with(dying_at(tmp_path, point)).announce()
    assert await desk.told() == []
    assert await desk.verdicts.announce() == 1
    assert [verdict.entity_hash for verdict in await desk.told()] == [hashed("address", "attacker")]
    assert await desk.verdicts.announce() == 0


async def test_a_kill_after_telling_tells_again_and_harms_nobody(desk: Desk, account: UUID, tmp_path: object) -> None:
    await desk.verdicts.announce()
    await desk.redis.flushall()
    await desk.store(desk.decision(account, "attacker"))
    with pytest.raises(Killed):
        await desk.verdicts_with(dying_at(tmp_path, "after-publish:announce_verdicts")).announce()
    await desk.verdicts.announce()
    told = await desk.told()
    assert len(told) == 2
    assert told[0] == told[1]


async def test_whoever_asks_gets_what_an_emptied_stream_lost(desk: Desk, account: UUID) -> None:
    [before] = await desk.store(desk.decision(account, "first"))
    found, cursor = await desk.verdicts.since("", 0)
    assert ids.encode("verdict", before.id) in {verdict.id for verdict in found}
    [after] = await desk.store(desk.decision(account, "second"))
    await desk.verdicts.announce()
    await desk.redis.flushall()
    found, later = await desk.verdicts.since(cursor, 0)
    assert [verdict.id for verdict in found] == [ids.encode("verdict", after.id)]
    assert await desk.verdicts.since(later, 0) == ([], later)


async def test_pages_are_walked_to_the_end(desk: Desk, account: UUID) -> None:
    _, start = await _to_the_end(desk, "")
    made = await desk.store(*[desk.decision(account, f"bot {number}", action=Action.THROTTLE) for number in range(7)])
    found, cursor = await desk.verdicts.since(start, 3)
    assert len(found) == 3
    rest, _ = await _to_the_end(desk, cursor)
    assert {*(verdict.id for verdict in found), *rest} == {ids.encode("verdict", verdict.id) for verdict in made}


async def _to_the_end(desk: Desk, cursor: str) -> tuple[list[str], str]:
    seen: list[str] = []
    while True:
        found, cursor = await desk.verdicts.since(cursor, 3)
        if not found:
            return seen, cursor
        seen += [verdict.id for verdict in found]


async def test_what_commits_late_is_not_passed_over(desk: Desk, account: UUID) -> None:
    """Positions and transactions are numbered before they end: a reader waits for those that began earlier."""
    _, start = await _to_the_end(desk, "")
    slow = desk.ids.new()
    async with desk.database.app.tenant(slow, "slow") as conn:
        [early] = await desk.verdicts._add(conn, slow, [desk.decision(slow, "early")])
        [late] = await desk.store(desk.decision(account, "late"))
        found, cursor = await desk.verdicts.since(start, 0)
        assert late.id not in {ids.decode("verdict", verdict.id) for verdict in found}
    found, _ = await desk.verdicts.since(cursor, 0)
    assert {verdict.id for verdict in found} == {ids.encode("verdict", one.id) for one in (early, late)}


async def test_a_cursor_of_another_cluster_starts_over_and_a_strange_one_is_refused(desk: Desk, account: UUID) -> None:
    [made] = await desk.store(desk.decision(account, "attacker"))
    found, _ = await desk.verdicts.since("99999999999999.1", 0)
    assert ids.encode("verdict", made.id) in {verdict.id for verdict in found}
    with pytest.raises(GatefoldError, match="cursor_malformed"):
        await desk.verdicts.since("'; --", 0)


async def test_what_is_over_expires_and_is_listed_no_more(desk: Desk, account: UUID) -> None:
    [made] = await desk.store(desk.decision(account, "attacker", seconds=60))
    desk.clock.advance(timedelta(seconds=61))
    assert await desk.verdicts.expire() >= 1
    assert await kept(desk, account, "attacker") == []
    async with desk.database.app.tenant(account, "look") as conn:
        found = await verdicts.find(conn, account, made.id)
    assert found is not None
    assert found.state is State.EXPIRED
    listed, _ = await desk.verdicts.since("", 0)
    assert ids.encode("verdict", made.id) not in {verdict.id for verdict in listed}


async def test_one_who_lost_the_shard_writes_nothing(desk: Desk, account: UUID) -> None:
    other = await desk.hold(desk.ids.new())
    assert other != desk.replica
    with pytest.raises(LeaseLostError):
        await desk.store(desk.decision(account, "attacker"))
    assert await kept(desk, account, "attacker") == []


async def test_what_people_said_meanwhile_holds_for_what_was_decided_before(desk: Desk, account: UUID) -> None:
    now = desk.clock.wall()
    async with desk.database.app.tenant(account, "suppress") as conn:
        await suppressions.add(
            conn,
            account,
            desk.ids.new(),
            Scope.ADDRESS,
            hashed("address", "office"),
            ["stuffing-address"],
            now,
            now + timedelta(days=30),
        )
    spared, other = desk.decision(account, "office"), desk.decision(account, "office", detector="scraping-address")
    made = await desk.store(spared, other)
    assert [verdict.detector for verdict in made] == ["scraping-address"]


async def test_a_forged_account_makes_no_verdict(desk: Desk) -> None:
    decided = desk.decision(None, "attacker")
    forged = replace(decided, decision=replace(decided.decision, account="acct_'; DROP TABLE verdict"))
    assert await desk.store(forged) == []


async def test_a_thousand_decisions_are_written_at_once_and_open_few_cases(desk: Desk, account: UUID) -> None:
    made = await desk.store(*[desk.decision(account, f"bot {number}") for number in range(1000)])
    assert len(made) == 1000
    counted = await desk.cases.statistics(desk.who(account), 1)
    assert counted.open_cases == 30
    assert [(family.family, family.enforced) for family in counted.families] == [("credential_stuffing", 1000)]


async def test_people_decide_beside_the_judge(desk: Desk, account: UUID) -> None:
    """A block by people is not replaced by what the judge says later."""
    case = await desk.case_of(account, "attacker")
    await desk.actions.act(desk.who(account), case, ActionKind.BLOCK, 86_400)
    await desk.store(desk.decision(account, "attacker", after=60))
    assert REVIEW in {verdict.detector for verdict in await kept(desk, account, "attacker")}
