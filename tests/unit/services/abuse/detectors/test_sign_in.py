"""Detectors of passwords that are tried: each speaks about its attack, and not about what looks most like it."""

import random

import pytest

from tests.support.activities import Story, hashed
from tests.unit.services.abuse.detectors.detecting import DAY, HOUR, accused, families, found, surest

pytestmark = pytest.mark.case("edge-15")


def ordinary_days(story: Story, days: float, people: int = 60, account: str = "acct_one") -> None:
    """People who sign in from home now and then; one in eight mistypes once."""
    chance = random.Random(people)
    for person in range(people):
        at = chance.random() * DAY
        while at < days * DAY:
            fields = {"address": f"home {person}", "user_agent": f"browser {person % 9}", "device": f"device {person}"}
            if chance.random() < 0.125:
                story.sign_in(at - 8, f"person {person}", account=account, **fields)
            story.sign_in(at, f"person {person}", ok=True, account=account, **fields)
            at += DAY * (0.3 + chance.random() * 0.4)


def test_one_address_that_tries_many_people_is_blocked() -> None:
    story = Story()
    for index in range(40):
        story.sign_in(index * 2, f"person {index}", address="attacker", user_agent="program", ok=index == 33)
    findings = found(story)
    assert surest(findings, "stuffing-address", "address", "attacker") >= 0.98
    first = next(one for one in findings if one.confidence >= 0.85 and one.detector == "stuffing-address")
    assert first.request_id in {f"req_{index * 2}" for index in range(9)}


def test_slow_stuffing_below_every_limit_is_seen_within_the_day() -> None:
    story = Story()
    for index in range(24):
        story.sign_in(index * HOUR, f"person {index}", address="slow", user_agent="program")
    assert surest(found(story), "stuffing-address", "address", "slow") >= 0.85


def test_addresses_of_one_network_that_try_few_people_each_are_seen_together() -> None:
    story = Story()
    for index in range(60):
        story.sign_in(
            index * 20, f"person {index}", address=f"{index}", network="block", user_agent=f"program {index % 20}"
        )
    assert surest(found(story), "stuffing-network", "network", "block") >= 0.9


def test_one_try_each_from_ten_thousand_addresses_is_seen() -> None:
    story = Story()
    ordinary_days(story, 3)
    begin = 2 * DAY
    for index in range(10_000):
        fields = {"address": f"bot {index}", "user_agent": f"program {index % 200}"}
        story.sign_in(begin + index * 0.36, f"leaked {index}", **fields)
    findings = found(story)
    seen = accused(findings, "credential_stuffing", least=0.9)
    bots = {hashed("address", f"bot {index}") for index in range(10_000)}
    assert len(seen & bots) > 9_500
    assert not seen & {hashed("address", f"home {person}") for person in range(60)}


def test_one_program_behind_many_addresses_is_named() -> None:
    story = Story()
    ordinary_days(story, 1)
    for index in range(200):
        story.sign_in(DAY / 2 + index * 10, f"leaked {index}", address=f"bot {index}", user_agent="one program")
    assert surest(found(story), "stuffing-agent", "user_agent", "one program") >= 0.95


def test_an_office_behind_one_address_is_no_attacker() -> None:
    story = Story()
    chance = random.Random(4)
    for day in range(3):
        for person in range(300):
            at = day * DAY + 8 * HOUR + chance.random() * HOUR
            fields = {"address": "office", "user_agent": f"browser {person % 12}", "device": f"device {person}"}
            for wrong in range(chance.choice((0, 0, 0, 0, 0, 1, 1, 2))):
                story.sign_in(at - 20 + wrong * 8, f"person {person}", **fields)
            story.sign_in(at, f"person {person}", ok=True, **fields)
    assert not accused(found(story), "credential_stuffing", least=0.7)


def test_ordinary_days_bring_no_findings() -> None:
    story = Story()
    ordinary_days(story, 10, people=150)
    assert families(found(story)) == set()


def test_a_password_that_is_guessed_asks_for_a_proof() -> None:
    story = Story()
    for index in range(20):
        story.sign_in(index * 5, "victim", address="guesser")
    findings = found(story)
    assert surest(findings, "brute-force-target", "target", "victim") >= 0.9
    assert surest(findings, "brute-force-address", "address", "guesser") >= 0.98


def test_guesses_from_many_addresses_at_one_person_are_seen() -> None:
    story = Story()
    for index in range(16):
        story.sign_in(index * HOUR, "victim", address=f"bot {index}", user_agent=f"program {index}")
    assert surest(found(story), "brute-force-target", "target", "victim") >= 0.9


def test_an_app_with_an_old_password_is_no_guesser() -> None:
    story = Story()
    story.sign_in(0, "owner", ok=True, address="home", device="phone")
    for index in range(400):
        story.sign_in(HOUR + index * 20, "owner", address="home", device="phone", user_agent="app")
    assert families(found(story)) == set()


def test_a_password_manager_that_posts_twice_is_no_guesser() -> None:
    story = Story()
    for person in range(20):
        for day in range(5):
            for twice in (0.0, 0.05):
                at = day * DAY + person * 600 + twice
                story.sign_in(at, f"person {person}", ok=twice > 0, address=f"home {person}")
    assert families(found(story)) == set()


def stranger_gets_in(story: Story, at: float) -> None:
    for index in range(6):
        story.sign_in(at - 600 + index * 60, "victim", address=f"bot {index}", user_agent="program")
    story.sign_in(at, "victim", ok=True, address="bot 7", user_agent="program", device="theirs")


def test_a_stranger_who_gets_in_after_many_tries_has_taken_over() -> None:
    story = Story()
    for day in range(9):
        story.sign_in(day * DAY, "victim", ok=True, address="home", user_agent="browser", device="own")
    stranger_gets_in(story, 8.5 * DAY)
    assert surest(found(story), "takeover-sign-in", "target", "victim") >= 0.97


def test_a_hit_of_an_address_that_stuffs_is_a_takeover() -> None:
    story = Story()
    for day in range(9):
        story.sign_in(day * DAY, "victim", ok=True, address="home", user_agent="browser", device="own")
    for index in range(12):
        story.sign_in(8.5 * DAY + index, f"other {index}", address="bot", user_agent="program")
    story.sign_in(8.5 * DAY + 20, "victim", ok=True, address="bot", user_agent="program")
    assert surest(found(story), "takeover-sign-in", "target", "victim") >= 0.97


@pytest.mark.parametrize("mistyped", [0, 2, 4])
def test_a_traveller_with_their_own_phone_has_not_been_taken_over(mistyped: int) -> None:
    story = Story()
    own = {"user_agent": "browser", "device": "own"}
    for day in range(9):
        story.sign_in(day * DAY, "traveller", ok=True, address="home", **own)
    for index in range(mistyped):
        story.sign_in(9 * DAY - 100 + index * 10, "traveller", address="hotel", **own)
    story.sign_in(9 * DAY, "traveller", ok=True, address="hotel", **own)
    assert families(found(story)) == set()


def test_a_new_phone_in_a_new_network_alone_is_no_takeover() -> None:
    story = Story()
    for day in range(9):
        story.sign_in(day * DAY, "reader", ok=True, address="home", user_agent="browser", device="own")
    story.sign_in(9 * DAY - 30, "reader", address="hotel", user_agent="new", device="new")
    story.sign_in(9 * DAY, "reader", ok=True, address="hotel", user_agent="new", device="new")
    assert not accused(found(story), "account_takeover", least=0.6)


BERLIN, SYDNEY, PARIS = (52, 13), (-34, 151), (49, 2)


def place(where: tuple[int, int], country: str = "DE") -> dict[str, object]:
    return {"geo_location_lat": where[0], "geo_location_lon": where[1], "geo_country_iso_code": country}


def test_nobody_is_in_berlin_and_an_hour_later_in_sydney() -> None:
    story = Story()
    story.sign_in(0, "reader", ok=True, address="home", device="own", **place(BERLIN))
    story.sign_in(HOUR, "reader", ok=True, address="other", device="other", **place(SYDNEY, "AU"))
    assert surest(found(story), "impossible-travel", "target", "reader") >= 0.9


@pytest.mark.parametrize(("hours", "where"), [(26, SYDNEY), (1.5, PARIS)])
def test_a_flight_is_possible(hours: float, where: tuple[int, int]) -> None:
    story = Story()
    story.sign_in(0, "reader", ok=True, address="home", device="own", **place(BERLIN))
    story.sign_in(hours * HOUR, "reader", ok=True, address="hotel", device="own", **place(where, "XX"))
    assert families(found(story)) == set()


def test_an_office_whose_network_is_told_elsewhere_is_no_journey() -> None:
    story = Story()
    for day in range(6):
        story.sign_in(day * DAY, "reader", ok=True, address="home", device="own", **place(BERLIN))
        story.sign_in(day * DAY + HOUR, "reader", ok=True, address="office", device="desk", **place(SYDNEY, "AU"))
    findings = [one for one in found(story) if one.at.timestamp() - story.in_order()[0].time.seconds > 2 * DAY]
    assert not accused(findings, "impossible_travel", least=0.7)


def test_impossible_travel_never_does_more_than_ask_for_a_factor() -> None:
    from services.abuse.domain.detector import Action
    from tests.unit.services.abuse.detectors.detecting import catalogue

    travel = [one for one in catalogue().detectors if one.family == "impossible_travel"]
    assert {one.most for one in travel} == {Action.CHALLENGE}


def test_a_copy_of_a_session_far_away_is_seen_and_a_private_network_is_none() -> None:
    story = Story()
    own = {"session": "copied", "actor": "reader", "device": "own", "user_agent": "browser"}
    story.read(-DAY, "page", address="home", **own, **place(BERLIN))
    for turn in range(4):
        copied = {"session": "copied", "actor": "reader"}
        story.read(turn * 120, "page", address="home", device="own", user_agent="browser", **copied, **place(BERLIN))
        thief = {"address": f"far {turn}", "device": "thief's", "user_agent": "tool"}
        story.read(turn * 120 + 40, "page", **thief, **copied, **place(SYDNEY, "AU"))
    for turn in range(2):
        own = {"session": "tunnel", "actor": "other", "device": "own one", "user_agent": "browser"}
        story.read(turn * 1800, "page", address="home 2", **own, **place(BERLIN))
        story.read(turn * 1800 + 60, "page", address="exit", **own, **place(SYDNEY, "AU"))
    findings = found(story)
    # Nothing of the reader's, the session either, and nothing of the tunnel's.
    thief = {hashed("device", "thief's")} | {hashed("address", f"far {turn}") for turn in range(4)}
    assert accused(findings, "impossible_travel", least=0.95) == thief
    assert accused(findings, "impossible_travel", least=0) == thief


def test_a_copy_of_a_whole_browser_is_seen_by_its_going_to_and_fro() -> None:
    story = Story()
    own = {"session": "copied", "actor": "reader", "device": "own", "user_agent": "browser"}
    for day in range(3):
        story.read(-day * DAY, "page", address="home", **own, **place(BERLIN))
    for turn in range(6):
        story.read(turn * 240, "page", address="home", **own, **place(BERLIN))
        story.read(turn * 240 + 40, "page", address="thief", **own, **place(SYDNEY, "AU"))
    findings = found(story)
    assert surest(findings, "impossible-travel-address", "address", "thief") >= 0.9
    assert surest(findings, "impossible-travel-address", "address", "home") == 0
