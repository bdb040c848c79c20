"""Looking at one shard: what is decided, what is dropped, who is picked, what a snapshot holds."""

import pytest
from gatefold.activity.v1 import activity_pb2

from services.abuse.domain.finding import Entity, Scope
from services.abuse.engine.catalogue import Catalogue
from services.abuse.engine.packed import Activities
from services.abuse.usecases.watch import AUDITS_A_DAY, MOST_BATCH_BYTES, MOST_REFUSED, Decided, Read, Watch, read
from tests.support.activities import BEGIN, Story, hashed

pytestmark = pytest.mark.case("edge-15")

CATALOGUE = Catalogue.load()
ACCOUNT = "acct_01m8rt6hh5eqhr9ty1pdq2dtyk"


class Nothing:
    """Nobody said that anything is legitimate."""

    def suppressed(self, entity: Entity, detector: str, at: object) -> bool:
        return False


def watch() -> Watch:
    return Watch(CATALOGUE, Nothing())


def seen(story: Story) -> Read:
    events = story.in_order()
    return Read(Activities.of(events), [event.time.seconds * 1000 for event in events])


def stuffing(first: int, number: int) -> Story:
    story = Story()
    for index in range(first, first + number):
        story.sign_in(
            index, f"person {index}", account=ACCOUNT, address="attacker", user_agent="program", request_id=f"r{index}"
        )
    return story


def packed(*activities: activity_pb2.Activity, lost: int = 0) -> bytes:
    return activity_pb2.ActivityBatch(activities=activities, lost=lost).SerializeToString()


def test_decisions_bring_what_was_seen_with_them() -> None:
    decided = watch().take(seen(stuffing(0, 20))).decided
    about = [item for item in decided if item.decision.scope is Scope.ADDRESS]
    assert about
    assert about[-1].decision.entity == hashed("address", "attacker")
    assert about[-1].seen[Scope.USER_AGENT] == hashed("user_agent", "program")


def last_about(decided: list[Decided], scope: Scope) -> Decided:
    return [item for item in decided if item.decision.scope is scope][-1]


@pytest.mark.parametrize("after", [-0.001, 0.001])
def test_what_was_seen_is_of_all_that_one_request_became_whichever_was_told_first(after: float) -> None:
    story = stuffing(0, 20)
    for index in range(20):
        # The edge tells of the same request, and knows no target; another's request has a name that begins alike.
        story.add("", index + after, status=401, account=ACCOUNT, address="attacker", request_id=f"r{index}")
        story.read(index + after, "page", account=ACCOUNT, address="reader", request_id=f"r{index}0", device="theirs")
    found = last_about(watch().take(seen(story)).decided, Scope.ADDRESS)
    assert found.seen[Scope.TARGET] == hashed("target", f"person {found.decision.request_id[1:]}")
    assert found.seen[Scope.USER_AGENT] == hashed("user_agent", "program")
    assert Scope.DEVICE not in found.seen


def test_records_without_a_request_are_told_apart_by_their_moment() -> None:
    story = Story()
    for index in range(20):
        story.sign_in(index, f"person {index}", account=ACCOUNT, address="attacker", request_id="")
        story.read(index, "page", account=ACCOUNT, address="reader", request_id="", device="theirs")
    decided = watch().take(seen(story)).decided
    found = last_about(decided, Scope.ADDRESS)
    number = round(found.decision.at.timestamp()) - BEGIN
    assert found.seen[Scope.TARGET] == hashed("target", f"person {number}")
    assert Scope.DEVICE not in found.seen


def test_the_same_events_are_decided_alike_however_they_are_cut() -> None:
    whole = watch().take(seen(stuffing(0, 20))).decided
    parts = watch()
    cut = [item for start in range(0, 20, 3) for item in parts.take(seen(stuffing(start, min(3, 20 - start)))).decided]
    assert [item.decision for item in cut] == [item.decision for item in whole]


def test_a_snapshot_goes_on_where_it_was_made() -> None:
    first, second, whole = watch(), watch(), watch()
    first.take(seen(stuffing(0, 5)))
    assert second.restore(first.snapshot())
    whole.take(seen(stuffing(0, 5)))
    assert second.take(seen(stuffing(5, 5))).decided == whole.take(seen(stuffing(5, 5))).decided


@pytest.mark.parametrize("damage", [b"", b"x" * 100, None])
def test_a_damaged_snapshot_is_no_snapshot(damage: bytes | None) -> None:
    first, second = watch(), watch()
    first.take(seen(stuffing(0, 5)))
    assert not second.restore(first.snapshot()[:-20] if damage is None else damage)
    assert second.take(seen(stuffing(0, 20))).decided == watch().take(seen(stuffing(0, 20))).decided


def test_what_was_forgiven_begins_anew() -> None:
    held = watch()
    before = held.take(seen(stuffing(0, 20))).decided
    attacker = Entity(Scope.ADDRESS, hashed("address", "attacker"))
    again = held.take(seen(stuffing(100, 20)), [attacker]).decided
    assert any(item.decision.strikes == 0 and item.decision.scope is Scope.ADDRESS for item in again)
    assert before


def test_entries_that_cannot_be_read_are_dropped_one_by_one() -> None:
    good = stuffing(0, 1).events[0]
    huge = activity_pb2.Activity(http_route="x" * 5_000)
    found = read(
        [(1, None), (2, b"\xff\xff"), (3, packed(good, huge, lost=7)), (4, b"\0" * (MOST_BATCH_BYTES + 1)), (5, b"")]
    )
    assert (list(found.activities), found.received_ms, found.dropped, found.lost) == ([good], [3], 4, 7)


def test_requests_that_a_verdict_refused_are_named_up_to_a_bound() -> None:
    story = Story()
    for index in range(MOST_REFUSED + 50):
        story.read(index, "page", account=ACCOUNT, address="a", verdict_id="verdict_x", request_id=f"r{index}")
    refused = watch().take(seen(story)).refused
    assert len(refused) == MOST_REFUSED
    assert refused[0] == ("r0", "verdict_x")


def test_each_account_is_sampled_a_few_times_a_day_and_never_the_refused() -> None:
    held, turns = watch(), set()
    for hour in range(48):
        story = Story()
        story.read(hour * 3600, "page", account=ACCOUNT, address="x", refused_by_edge=True)
        story.read(hour * 3600 + 1, "page", account=ACCOUNT, address="y", actor="reader")
        for sample in held.take(seen(story)).samples:
            assert (sample.scope, sample.entity) == (Scope.ACTOR, hashed("actor", "reader"))
            turns.add(sample.turn)
    assert 2 * AUDITS_A_DAY - 1 <= len(turns) <= 2 * AUDITS_A_DAY + 1
