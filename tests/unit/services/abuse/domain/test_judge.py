"""The judge: how hard, how long, whom it spares, and that it does not flap."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import log

import pytest

from services.abuse.domain.detector import Action, Detector, Mode, Rung, confidence_of
from services.abuse.domain.finding import Entity, Finding, Measure, Scope
from services.abuse.domain.judge import FORGIVEN_AFTER, MANY, SPARED, Decision, Judge

pytestmark = pytest.mark.case("edge-15")

BEGIN = datetime(2026, 11, 2, 8, tzinfo=UTC)
LADDER = (
    Rung(Action.TAG, 0.7, 0, 600),
    Rung(Action.CHALLENGE, 0.85, 0, 600),
    Rung(Action.THROTTLE, 0.95, 1, 1200),
    Rung(Action.BLOCK, 0.98, 0, 3600),
)


def detector(
    name: str = "stuffing", family: str = "credential_stuffing", ladder: tuple[Rung, ...] = LADDER
) -> Detector:
    return Detector(
        name=name,
        family=family,
        title="",
        sees="",
        scope=Scope.ADDRESS,
        per_account=False,
        mode=Mode.ENFORCE,
        events=("sign_in.password",),
        where=(),
        signals=(),
        prior=-5.0,
        ladder=ladder,
        slots=8,
        version=f"{name}@1",
    )


class Said:
    """What people said, in memory."""

    def __init__(self, *legitimate: Entity) -> None:
        self.legitimate = set(legitimate)

    def suppressed(self, entity: Entity, detector: str, at: datetime) -> bool:
        return entity in self.legitimate


ENTITY = Entity(Scope.ADDRESS, b"0123456789abcdef", None)


def finding(
    confidence: float, after: float = 0.0, *, by: str = "stuffing", entity: Entity = ENTITY, shadow: bool = False
) -> Finding:
    score = log(confidence / (1 - confidence))
    return Finding(
        detector=by,
        account=entity.account,
        scope=entity.scope,
        entity_hash=entity.hash,
        score=score,
        confidence=confidence,
        reasons=("credential_stuffing", "targets"),
        evidence={"targets": Measure(12.0, 8.0, 6.5)},
        at=BEGIN + timedelta(seconds=after),
        request_id="req_1",
        rule_version=f"{by}@1",
        shadow=shadow,
    )


def judge(*detectors: Detector, said: Said | None = None) -> Judge:
    return Judge(detectors or (detector(),), said or Said())


def decided(one: Judge, *findings: Finding, good: int = 0) -> list[Decision]:
    return one.decide(findings, {ENTITY: good} if good else {})


@pytest.mark.parametrize(
    ("confidence", "action"),
    [(0.71, Action.TAG), (0.9, Action.CHALLENGE), (0.96, Action.CHALLENGE), (0.99, Action.BLOCK)],
)
def test_the_ladder_is_climbed_as_far_as_confidence_reaches(confidence: float, action: Action) -> None:
    [decision] = decided(judge(), finding(confidence))
    assert decision.action is action
    assert decision.at == BEGIN


def test_below_the_ladder_nothing_is_done() -> None:
    assert decided(judge(), finding(0.6)) == []


def test_a_decision_explains_itself() -> None:
    [decision] = decided(judge(), finding(0.99))
    assert decision.reasons == ("credential_stuffing", "targets")
    assert decision.evidence["stuffing.targets"] == Measure(12.0, 8.0, 6.5)
    assert decision.rule_version == "stuffing@1"
    assert decision.confidence == pytest.approx(0.99)


def test_strikes_make_it_harder_and_longer_and_are_forgiven() -> None:
    one = judge()
    [first] = decided(one, finding(0.96))
    [second] = decided(one, finding(0.96, 1000))
    [third] = decided(one, finding(0.96, 10_000))
    assert [each.action for each in (first, second, third)] == [Action.CHALLENGE, Action.THROTTLE, Action.THROTTLE]
    assert [each.seconds for each in (first, second, third)] == [600, 2 * 1200, 4 * 1200]
    [later] = decided(one, finding(0.96, 10_000 + 3 * FORGIVEN_AFTER.total_seconds()))
    assert (later.action, later.strikes) == (Action.CHALLENGE, 0)


def test_verdicts_do_not_flap() -> None:
    one = judge()
    findings = [finding(0.99 if at % 2 else 0.8, at * 60) for at in range(60)]
    decisions = decided(one, *findings)
    # A tag, then one block that its own findings renew, and nothing milder between.
    assert [each.action for each in decisions][:2] == [Action.TAG, Action.BLOCK]
    assert {each.action for each in decisions[1:]} == {Action.BLOCK}
    assert len(decisions) <= 3
    assert len([each for each in decisions if each.action is Action.TAG]) == 1


def test_what_is_in_force_is_not_repeated_until_it_is_nearly_over() -> None:
    one = judge()
    [first] = decided(one, finding(0.99))
    assert decided(one, finding(0.99, 100), finding(0.99, 0.7 * first.seconds)) == []
    [renewed] = decided(one, finding(0.99, 0.85 * first.seconds))
    # It went on in spite of the verdict.
    assert (renewed.action, renewed.strikes, renewed.seconds) == (Action.BLOCK, 1, 2 * first.seconds)


def test_what_gets_worse_meanwhile_is_the_same_strike() -> None:
    one = judge()
    [first, worse] = decided(one, finding(0.9), finding(0.99, 60))
    assert (first.action, worse.action) == (Action.CHALLENGE, Action.BLOCK)
    assert (first.strikes, worse.strikes, worse.seconds) == (0, 0, 3600)


@pytest.mark.parametrize(
    ("good", "confidence", "action"),
    [
        (0, 0.99, Action.BLOCK),
        (1, 0.99, Action.THROTTLE),
        (SPARED, 0.99, Action.CHALLENGE),
        (MANY, 0.99, Action.CHALLENGE),
        (MANY, 0.9, Action.TAG),
    ],
)
def test_where_good_actors_are_it_is_milder(good: int, confidence: float, action: Action) -> None:
    [decision] = decided(judge(), finding(confidence), good=good)
    assert decision.action is action
    assert ("good_actors" in decision.evidence) == ("good_actors" in decision.reasons) == (good > 0)


def test_no_number_of_strikes_blocks_an_office() -> None:
    one = judge()
    decisions = decided(one, *(finding(0.999, at * 100_000) for at in range(12)), good=SPARED)
    assert len(decisions) > 5
    assert max(each.action for each in decisions) is Action.CHALLENGE


def test_a_persons_own_session_is_nobody_elses() -> None:
    entity = Entity(Scope.TARGET, b"0123456789abcdef", "acct_one")
    ladder = (Rung(Action.REVOKE, 0.9, 0, 60),)
    one = judge(detector(ladder=ladder))
    [decision] = one.decide([finding(0.95, entity=entity)], {entity: 100})
    assert decision.action is Action.REVOKE


def test_what_somebody_called_legitimate_is_left_alone() -> None:
    said = Said(ENTITY)
    one = judge(said=said)
    assert decided(one, finding(0.99)) == []
    said.legitimate.clear()
    [decision] = decided(one, finding(0.99, 1))
    one.forgive(ENTITY)
    [again] = decided(one, finding(0.99, 2))
    assert (decision.strikes, again.strikes) == (0, 0)


def test_two_detectors_are_surer_than_one_and_less_than_both_added() -> None:
    other = detector("brute", "brute_force")
    one = judge(detector(), other)
    [first, second] = decided(one, finding(0.8), replace(finding(0.8, 10), detector="brute"))
    alone, together = log(0.8 / 0.2), log(second.confidence / (1 - second.confidence))
    assert first.confidence == pytest.approx(0.8)
    assert alone < together < 2 * alone + 5.0
    assert second.reasons[:2] == ("credential_stuffing", "brute_force")


def test_what_was_said_hours_ago_adds_nothing() -> None:
    one = judge(detector(), detector("brute", "brute_force"))
    decisions = decided(one, finding(0.8), replace(finding(0.8, 20_000), detector="brute"))
    assert decisions[-1].confidence == pytest.approx(0.8)


def test_shadow_neither_strikes_nor_stands_in_the_way() -> None:
    one = judge()
    [tried] = decided(one, finding(0.99, shadow=True))
    [real] = decided(one, finding(0.96, 1))
    assert tried.shadow
    assert not real.shadow
    assert (real.action, real.strikes) == (Action.CHALLENGE, 0)


def test_a_judge_takes_up_where_a_snapshot_was_made() -> None:
    one, other = judge(), judge()
    decided(one, finding(0.96))
    other.restore(one.snapshot())
    later = [finding(0.96, 1000), finding(0.99, 1100)]
    assert decided(other, *later) == decided(one, *later)
    assert other.snapshot() == one.snapshot()


@pytest.mark.parametrize("damaged", [b"", b"{}", b"[]", b'{"format": 2}', b'{"format": 1, "standings": [1]}'])
def test_what_is_no_snapshot_is_refused(damaged: bytes) -> None:
    one = judge()
    decided(one, finding(0.96))
    before = one.snapshot()
    with pytest.raises(ValueError):
        one.restore(damaged)
    assert one.snapshot() == before


def test_no_more_entities_are_remembered_than_there_is_room_for() -> None:
    one = Judge((detector(),), Said(), most_entities=100)
    entities = [Entity(Scope.ADDRESS, index.to_bytes(16, "big"), None) for index in range(150)]
    template = finding(0.9)
    one.decide((replace(template, entity_hash=entity.hash) for entity in entities), {})
    assert len(one) == 100


def test_confidence_is_the_probability_of_log_odds() -> None:
    assert confidence_of(0.0) == 0.5
    assert confidence_of(log(99)) == pytest.approx(0.99)
    assert 0.0 < confidence_of(-1e9) < confidence_of(1e9) < 1.0
