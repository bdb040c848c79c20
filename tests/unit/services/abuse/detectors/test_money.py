"""Detectors where money is at stake: cards, codes, trials, refunds, keys."""

import random

import pytest

from tests.support.activities import Story, hashed
from tests.unit.services.abuse.detectors.detecting import DAY, HOUR, accused, families, found, surest

pytestmark = pytest.mark.case("edge-15")


def ordinary_payments(story: Story, days: float, readers: int = 200) -> None:
    """One in ten cards is declined and taken at the second try."""
    chance = random.Random(readers)
    for reader in range(readers):
        at = chance.random() * days * DAY
        fields = {"actor": f"reader {reader}", "address": f"home {reader}", "device": f"device {reader}"}
        if chance.random() < 0.1:
            story.pay(at - 60, f"card {reader}", **fields)
        story.pay(at, f"card {reader}", ok=True, **fields)


@pytest.mark.parametrize(
    ("detector", "kind"),
    [("card-testing-address", "address"), ("card-testing-actor", "actor"), ("card-testing-device", "device")],
)
def test_cards_that_are_tried_one_after_the_other_are_seen(detector: str, kind: str) -> None:
    story = Story()
    for index in range(12):
        # What is not the same stands for somebody who changes everything else.
        fields = {"address": f"a {index}", "actor": f"r {index}", "device": f"d {index}"} | {kind: "tester"}
        story.pay(index * 60, f"card {index}", ok=index == 9, **fields)
    assert surest(found(story), detector, kind, "tester") >= 0.98


def test_cards_tried_slowly_are_seen_within_days() -> None:
    story = Story()
    for index in range(16):
        story.pay(index * 3 * HOUR, f"card {index}", address="slow", actor="slow", device="slow")
    findings = found(story)
    assert surest(findings, "card-testing-actor", "actor", "slow") >= 0.85


@pytest.mark.parametrize(
    ("devices", "sure", "least"),
    # Whoever names a device may be a reader with a browser, and is noted, but asked for no proof.
    [(False, 0.9, 340), (True, 0.7, 260)],
)
def test_one_card_each_from_everywhere_is_seen_and_nobody_else_is(devices: bool, sure: float, least: int) -> None:
    story = Story()
    ordinary_payments(story, 3)
    for index in range(400):
        fields = {"address": f"bot {index}", "actor": f"bot {index}"}
        if devices:
            fields["device"] = f"bot {index}"
        story.pay(2 * DAY + index * 9, f"stolen {index}", ok=index % 12 == 0, **fields)
    findings = found(story)
    bots = {hashed("address", f"bot {index}") for index in range(400)}
    assert len(accused(findings, "card_testing", least=sure)) > least
    assert accused(findings, "card_testing", least=0) <= bots
    assert families(findings) == {"card_testing"}


def test_whoever_signed_in_or_has_a_coupon_may_have_a_card_declined_amid_an_attack() -> None:
    story = Story()
    for index in range(600):
        story.pay(index * 4, f"stolen {index}", address=f"bot {index}", actor=f"bot {index}")
        if index % 10 == 0:
            who = {"address": f"home {index}", "device": f"own {index}"}
            if index % 20:
                story.sign_in(index * 4 - 20, f"reader {index}", ok=True, **who)
            else:
                story.code(index * 4 - 20, "SUMMER26", ok=True, actor=f"reader {index}", **who)
            story.pay(index * 4, f"card {index}", actor=f"reader {index}", **who)
    findings = found(story)
    bots = {hashed("address", f"bot {index}") for index in range(600)}
    assert len(accused(findings, "card_testing", least=0.9)) > 480
    assert accused(findings, "card_testing", least=0) <= bots
    assert families(findings) == {"card_testing"}


def test_a_reader_whose_two_cards_are_declined_in_two_places_at_once_is_no_reader() -> None:
    story = Story()
    for index in range(2):
        fields = {"address": f"bot {index}", "device": f"bot {index}", "user_agent": f"browser {index}"}
        story.pay(index * 20, f"stolen {index}", actor="registered for it", **fields)
        story.pay(index * 20, f"card {index}", actor="unlucky", address="cafe", device="phone", user_agent="browser")
    findings = found(story)
    assert surest(findings, "card-testing-actor", "actor", "registered for it") >= 0.85
    assert accused(findings, "card_testing", least=0) == {hashed("actor", "registered for it")}


def test_cards_of_three_readers_that_are_declined_on_one_device_are_seen() -> None:
    story = Story()
    for index in range(3):
        fields = {"address": f"a {index}", "device": "tester", "user_agent": "browser"}
        story.pay(index * 5 * HOUR, f"card {index}", actor=f"reader {index}", **fields)
    assert surest(found(story), "card-testing-device", "device", "tester") >= 0.7


def test_a_flash_sale_and_a_shopper_with_two_cards_are_no_testing() -> None:
    story = Story()
    ordinary_payments(story, 3)
    chance = random.Random(2)
    for shopper in range(800):
        at = 2 * DAY + chance.random() * HOUR
        fields = {"actor": f"shopper {shopper}", "address": f"place {shopper % 500}", "device": f"own {shopper}"}
        if chance.random() < 0.15:
            story.pay(at - 30, f"card of {shopper}", **fields)
        story.pay(at, f"card of {shopper}", ok=True, **fields)
    unlucky = {"actor": "unlucky", "address": "cafe", "device": "phone"}
    for at, card in ((0, "one"), (40, "one"), (90, "two")):
        story.pay(at, card, **unlucky)
    story.pay(200, "two", ok=True, **unlucky)
    assert families(found(story)) == set()


@pytest.mark.parametrize("event", ["coupon.attempt", "gift.attempt"])
@pytest.mark.parametrize(
    ("detector", "kind"),
    [("code-guessing-address", "address"), ("code-guessing-actor", "actor"), ("code-guessing-device", "device")],
)
def test_codes_that_are_guessed_are_seen(detector: str, kind: str, event: str) -> None:
    story = Story()
    for index in range(20):
        fields = {"address": f"a {index}", "actor": f"r {index}", "device": f"d {index}"} | {kind: "guesser"}
        story.code(index * 15, f"code {index}", event=event, **fields)
    assert surest(found(story), detector, kind, "guesser") >= 0.98


def test_codes_guessed_from_everywhere_are_seen_and_shoppers_meanwhile_are_not() -> None:
    story = Story()
    for index in range(300):
        story.code(index * 6, f"guess {index}", address=f"bot {index}", device=f"bot {index}")
        if index % 5 == 0:
            shopper = {"address": f"home {index}", "actor": f"shopper {index}", "device": f"own {index}"}
            story.code(index * 6 + 1, f"typo {index}", **shopper)
            # Who is not signed in has to have entered a code that exists.
            guest = {"address": f"guest {index}", "device": f"guest's {index}"}
            story.code(index * 6 - DAY, "SUMMER26", ok=True, **guest)
            story.code(index * 6 + 2, f"typo {index}", **guest)
    findings = found(story)
    bots = {hashed("address", f"bot {index}") for index in range(300)}
    assert len(accused(findings, "code_guessing", least=0.9)) > 240
    assert accused(findings, "code_guessing", least=0) <= bots
    assert families(findings) == {"code_guessing"}


def test_a_sale_in_which_many_mistype_one_code_is_no_guessing() -> None:
    story = Story()
    chance = random.Random(6)
    for shopper in range(900):
        at = chance.random() * HOUR
        place = "office" if shopper < 80 else f"place {shopper}"
        fields = {"actor": f"shopper {shopper}", "address": place, "device": f"own {shopper}"}
        if chance.random() < 0.25:
            story.code(at - 20, chance.choice(("SUMER26", "SUMMER25", "SUMMER-26")), **fields)
        story.code(at, "SUMMER26", ok=True, **fields)
    for twice in range(3):
        story.code(twice * 10, f"typo {twice}", actor="clumsy", address="home", device="phone")
    assert families(found(story)) == set()


@pytest.mark.parametrize(("detector", "kind"), [("trial-abuse-device", "device"), ("trial-abuse-card", "target")])
def test_trials_without_end_are_seen(detector: str, kind: str) -> None:
    story = Story()
    for index in range(5):
        fields = {"device": f"d {index}", "target": f"card {index}", "address": f"a {index}"} | {kind: "same"}
        story.add("trial.started", index * 5 * DAY, actor=f"reader {index}", user_agent="browser", **fields)
    assert surest(found(story), detector, kind, "same") >= 0.9


def test_trials_of_one_program_at_one_address_are_seen() -> None:
    story = Story()
    for index in range(12):
        fields = {"device": f"d {index}", "target": f"card {index}", "address": "farm", "user_agent": "browser"}
        story.add("trial.started", index * HOUR, actor=f"reader {index}", **fields)
    assert surest(found(story), "trial-abuse-address", "address", "farm") >= 0.9


def test_couples_and_offices_may_each_have_their_trial() -> None:
    story = Story()
    for person in ("one", "other"):
        fields = {"device": "shared", "target": "shared card", "address": "home", "user_agent": "browser"}
        story.add("trial.started", 0.0 if person == "one" else DAY, actor=person, **fields)
    for person in range(30):
        fields = {"device": f"desk {person}", "target": f"card {person}", "address": "office"}
        story.add(
            "trial.started", person * HOUR, actor=f"person {person}", user_agent=f"browser {person % 13}", **fields
        )
    assert families(found(story)) == set()


def test_a_key_that_was_found_in_public_is_revoked_at_once() -> None:
    story = Story()
    story.add("api_key.leaked", 0, actor="key")
    assert surest(found(story), "key-leaked", "actor", "key") >= 0.99


def servers(story: Story, days: int) -> None:
    for index in range(days * 200):
        route = ("/v1/subscribers", "/v1/access")[index % 2]
        fields = {"actor": "key", "address": f"server {index % 3}", "network": "rack", "user_agent": "sdk/1"}
        story.add("", index * DAY / 200, http_route=route, method="GET", caller_kind="SECRET_KEY", **fields)


def test_a_key_in_strange_hands_is_seen() -> None:
    story = Story()
    servers(story, 4)
    for index in range(60):
        fields = {"actor": "key", "address": "thief", "user_agent": "curl", "http_route": f"/v1/thing{index % 20}"}
        status = 403 if index % 3 == 0 else 200
        story.add("", 3.5 * DAY + index * 10, status=status, method="GET", caller_kind="SECRET_KEY", **fields)
    findings = found(story)
    assert surest(findings, "key-leak-use", "address", "thief") >= 0.98
    # The owner's servers go on, and so does the key, which people decide about.
    assert accused(findings, "api_key_leak", least=0) == {hashed("address", "thief")}
    assert families(findings) == {"api_key_leak"}


def test_a_key_that_one_program_uses_from_everywhere_is_seen_by_the_program() -> None:
    story = Story()
    servers(story, 4)
    for index in range(40):
        story.add(
            "", 3.5 * DAY + index * 10, actor="key", caller_kind="SECRET_KEY", address=f"bot {index}", user_agent="tool"
        )
        own = {"actor": "key", "network": "rack", "address": f"server {index % 3}", "user_agent": "sdk/1"}
        story.add("", 3.5 * DAY + index * 10, caller_kind="SECRET_KEY", **own)
    findings = found(story)
    assert surest(findings, "key-leak-agent", "user_agent", "tool") >= 0.9
    assert surest(findings, "key-leak-agent", "user_agent", "sdk/1") == 0


def test_servers_that_are_multiplied_or_updated_are_in_known_hands() -> None:
    story = Story()
    servers(story, 6)
    for index in range(400):
        route = ("/v1/subscribers", "/v1/access")[index % 2]
        more = {"actor": "key", "address": f"new {index % 12}", "user_agent": "sdk/1"}
        story.add("", 3 * DAY + index * 10, http_route=route, method="GET", caller_kind="SECRET_KEY", **more)
        newer = {"actor": "key", "address": "server 1", "network": "rack", "user_agent": "sdk/2"}
        story.add("", 4 * DAY + index * 10, http_route=route, method="GET", caller_kind="SECRET_KEY", **newer)
    assert families(found(story)) == set()


def test_refunds_as_a_habit_are_seen() -> None:
    story = Story()
    for index in range(5):
        story.pay(index * 4 * DAY, "card", ok=True, actor="returner", address="home", device="own")
        story.add("refund.requested", index * 4 * DAY + HOUR, actor="returner", address="home", device="own")
    assert surest(found(story), "refund-abuse-actor", "actor", "returner") >= 0.6


def test_one_device_that_wants_refunds_as_many_readers_is_seen() -> None:
    story = Story()
    for index in range(4):
        story.pay(index * 4 * DAY, f"card {index}", ok=True, actor=f"reader {index}", address="home", device="same")
        story.add("refund.requested", index * 4 * DAY + HOUR, actor=f"reader {index}", address="home", device="same")
    assert surest(found(story), "refund-abuse-device", "device", "same") >= 0.9


def test_a_customer_of_long_standing_may_want_money_back() -> None:
    story = Story()
    for index in range(8):
        story.pay(index * 3 * DAY, "card", ok=True, actor="loyal", address="home", device="own")
    for index in range(2):
        story.add("refund.requested", 10 * DAY + index * DAY, actor="loyal", address="home", device="own")
    story.add("refund.requested", 5 * DAY, actor="once", address="home too", device="other")
    assert families(found(story)) == set()


def session_changes(story: Story, at: float, **fields: str) -> None:
    for index, route in enumerate(("/v1/session/email", "/v1/session/change_password", "/v1/factors/totp")):
        story.add("", at + index * 60, http_route=route, caller_kind="SUBSCRIBER", method="POST", **fields)


def test_a_stranger_who_changes_everything_has_taken_over() -> None:
    story = Story()
    own = {"actor": "victim", "address": "home", "user_agent": "browser"}
    for day in range(6):
        story.read(day * DAY, "page", **own)
    session_changes(story, 5.5 * DAY, actor="victim", address="elsewhere", user_agent="program")
    assert surest(found(story), "takeover-session", "actor", "victim") >= 0.85


def test_an_owner_who_changes_everything_at_home_has_not_been_taken_over() -> None:
    story = Story()
    own = {"actor": "owner", "address": "home", "user_agent": "browser"}
    for day in range(6):
        story.read(day * DAY, "page", **own)
    session_changes(story, 5.5 * DAY, **own)
    newcomer = {"actor": "newcomer", "address": "there", "user_agent": "browser"}
    session_changes(story, 5.5 * DAY, **newcomer)
    assert families(found(story)) == set()


def test_cards_of_one_program_from_everywhere_are_seen_and_a_browsers_are_not() -> None:
    story = Story()
    chance = random.Random(5)
    for index in range(60):
        fields = {"address": f"bot {index}", "actor": f"bot {index}"}
        story.pay(index * 50, f"stolen {index}", ok=index % 12 == 0, user_agent="tool", **fields)
    for shopper in range(200):
        fields = {"address": f"home {shopper}", "actor": f"shopper {shopper}", "device": f"own {shopper}"}
        story.pay(chance.random() * HOUR, f"card {shopper}", ok=chance.random() > 0.2, user_agent="browser", **fields)
    findings = found(story)
    assert surest(findings, "card-testing-agent", "user_agent", "tool") >= 0.95
    assert surest(findings, "card-testing-agent", "user_agent", "browser") == 0


def test_codes_of_one_program_from_everywhere_are_seen_and_a_browsers_are_not() -> None:
    story = Story()
    chance = random.Random(6)
    for index in range(80):
        story.code(index * 20, f"guess {index}", address=f"bot {index}", user_agent="tool")
    for shopper in range(200):
        right = chance.random() > 0.4
        code = "SUMMER" if right else f"typo {shopper}"
        fields = {"address": f"home {shopper}", "device": f"own {shopper}", "user_agent": "browser"}
        story.code(chance.random() * HOUR, code, ok=right, **fields)
    findings = found(story)
    assert surest(findings, "code-guessing-agent", "user_agent", "tool") >= 0.95
    assert surest(findings, "code-guessing-agent", "user_agent", "browser") == 0


def test_refunds_of_one_card_under_many_names_are_seen_and_a_couples_are_not() -> None:
    story = Story()
    for index in range(4):
        story.add("refund.requested", index * DAY, target="one card", actor=f"name {index}", device=f"device {index}")
    for index, name in enumerate(("she", "he", "she")):
        story.add("refund.requested", index * DAY, target="their card", actor=name)
    findings = found(story)
    assert surest(findings, "refund-abuse-card", "target", "one card") >= 0.9
    assert surest(findings, "refund-abuse-card", "target", "their card") == 0


def test_a_key_that_everybody_uses_is_nobody() -> None:
    story = Story()
    for index in range(400):
        fields = {"address": f"home {index}", "device": f"own {index}", "user_agent": f"browser {index % 30}"}
        story.read(index * 5, f"page {index % 50}", actor="the site's key", caller_kind="PUBLISHABLE_KEY", **fields)
    assert hashed("actor", "the site's key") not in {one.entity_hash for one in found(story)}
