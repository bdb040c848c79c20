"""Detectors of reading: scraping, evading the meter, sharing an account, asking for what is not there."""

import random

import pytest

from tests.support.activities import Story, hashed
from tests.unit.services.abuse.detectors.detecting import DAY, HOUR, accused, families, found, surest

pytestmark = pytest.mark.case("edge-15")


def test_a_reader_who_opens_hundreds_of_pages_an_hour_is_slowed_down() -> None:
    story = Story()
    for index in range(300):
        story.read(index * 10, f"page {index}", actor="scraper", address="server", user_agent="browser")
    assert surest(found(story), "scraping-actor", "actor", "scraper") >= 0.95


def test_scraping_below_every_limit_is_seen_over_the_day() -> None:
    story = Story()
    for index in range(700):
        story.read(index * 120, f"page {index}", actor="scraper", address=f"{index % 40}", user_agent="browser")
    assert surest(found(story), "scraping-actor", "actor", "scraper") >= 0.85


def test_scraping_without_an_account_is_seen_by_its_address() -> None:
    story = Story()
    for index in range(400):
        story.read(index * 8, f"page {index}", address="server", user_agent="program")
    assert surest(found(story), "scraping-address", "address", "server") >= 0.95


def test_an_office_that_reads_much_is_no_scraper() -> None:
    story = Story()
    chance = random.Random(3)
    for person in range(60):
        for _ in range(25):
            at, page = chance.random() * 8 * HOUR, f"page {chance.randrange(900)}"
            story.read(at, page, actor=f"person {person}", address="office", user_agent=f"browser {person % 10}")
    assert families(found(story)) == set()


def test_a_carriers_gateway_with_readers_without_account_is_no_scraper() -> None:
    story = Story()
    chance = random.Random(5)
    for phone in range(400):
        for _ in range(4):
            story.read(
                chance.random() * DAY, f"page {chance.randrange(2000)}", address="carrier", user_agent=f"{phone % 60}"
            )
    assert not accused(found(story), "content_scraping", least=0.7)


def test_a_keen_reader_a_probe_and_a_verified_crawler_are_no_scrapers() -> None:
    story = Story()
    for index in range(45):
        story.read(index * 60, f"page {index}", actor="keen", address="home", user_agent="browser")
    for index in range(2880):
        story.read(index * 30, "front page", address="probe", user_agent="probe")
    for index in range(3000):
        story.read(index * 20, f"page {index}", address="crawler", user_agent="crawler", verified_crawler=True)
    assert families(found(story)) == set()


def test_a_publishers_own_server_may_read_everything() -> None:
    story = Story()
    for index in range(2000):
        story.read(index, f"page {index}", actor="key", address="server", caller_kind="SECRET_KEY", user_agent="sdk")
    assert families(found(story)) == set()


def test_new_devices_without_end_evade_the_meter() -> None:
    story = Story()
    for index in range(40):
        story.add(
            "meter.read",
            index * 600,
            target=f"article {index}",
            device=f"device {index // 3}",
            address="home",
            user_agent="browser",
        )
    assert surest(found(story), "meter-evasion", "address", "home") >= 0.9


def test_an_office_a_family_and_a_sale_read_within_the_meter() -> None:
    story = Story()
    chance = random.Random(7)
    for person in range(120):
        for _ in range(3):
            fields = {"device": f"desk {person}", "address": "office", "user_agent": f"browser {person % 14}"}
            story.add("meter.read", chance.random() * DAY, target=f"article {chance.randrange(80)}", **fields)
    for person in range(4):
        for index in range(12):
            fields = {"device": f"family {person}", "address": "home", "user_agent": "browser"}
            story.add("meter.read", index * HOUR + person, target=f"article {person} {index}", **fields)
    assert not accused(found(story), "meter_evasion", least=0.7)


def used(story: Story, at: float, device: int, network: int, agent: int = 0) -> None:
    story.read(
        at, f"page {at}", actor="reader", device=f"{device}", address=f"address {network}", user_agent=f"agent {agent}"
    )


def test_an_account_that_many_strangers_use_is_shared() -> None:
    story = Story()
    chance = random.Random(8)
    for _ in range(300):
        who = chance.randrange(14)
        used(story, chance.random() * 2 * DAY, who, who, who)
    assert surest(found(story), "account-sharing", "actor", "reader") >= 0.9


@pytest.mark.parametrize(
    ("devices", "networks", "agents"), [(6, 2, 4), (2, 14, 2), (4, 3, 4)], ids=["family", "traveller", "couple"]
)
def test_families_and_travellers_do_not_share(devices: int, networks: int, agents: int) -> None:
    story = Story()
    chance = random.Random(9)
    for index in range(300):
        device = chance.randrange(devices)
        # A traveller is in one network after the other, a family in all at once.
        network = index * networks // 300 if networks > 3 else chance.randrange(networks)
        used(story, index * 7 * DAY / 300, device, network, device % agents)
    assert not accused(found(story), "account_sharing", least=0.7)


def test_asking_for_one_identifier_after_the_other_is_enumeration() -> None:
    story = Story()
    for index in range(60):
        story.read(index * 5, f"id {index}", status=404, actor="curious", address="somewhere", user_agent="program")
    findings = found(story)
    assert surest(findings, "enumeration-actor", "actor", "curious") >= 0.98
    assert surest(findings, "enumeration-address", "address", "somewhere") >= 0.98


def test_slow_enumeration_is_seen_within_the_day() -> None:
    story = Story()
    for index in range(90):
        story.read(index * 900, f"id {index}", status=403, actor="patient", address="somewhere", user_agent="program")
    assert surest(found(story), "enumeration-actor", "actor", "patient") >= 0.85


def test_dead_links_and_a_program_that_repeats_itself_are_no_enumeration() -> None:
    story = Story()
    chance = random.Random(10)
    for index in range(500):
        story.read(index * 2, "gone", status=404, actor="faulty", address="phone", user_agent="app")
    for index in range(400):
        status = 404 if chance.random() < 0.1 else 200
        story.read(index * 200, f"page {index % 40}", status=status, actor="reader", address="home", user_agent="b")
    assert families(found(story)) == set()


def test_pages_of_one_program_from_everywhere_are_seen_and_a_browsers_are_not() -> None:
    story = Story()
    for index in range(700):
        story.read(index * 4, f"page {index}", address=f"bot {index % 350}", user_agent="tool")
    for reader in range(300):
        for step in range(3):
            fields = {"address": f"home {reader}", "device": f"own {reader}", "user_agent": "browser"}
            story.read(reader * 9 + step * 60, f"page {reader * 3 + step}", **fields)
    findings = found(story)
    assert surest(findings, "scraping-agent", "user_agent", "tool") >= 0.95
    assert surest(findings, "scraping-agent", "user_agent", "browser") == 0


def test_the_meter_is_evaded_by_one_program_from_everywhere() -> None:
    story = Story()
    for index in range(120):
        for step in range(5):
            fields = {"address": f"bot {index}", "device": f"fresh {index}", "user_agent": "tool"}
            story.add("meter.read", index * 100 + step * 20, target=f"article {index * 7 + step}", **fields)
    for reader in range(120):
        for visit in range(2):
            fields = {"address": f"home {reader}", "device": f"own {reader}", "user_agent": "browser"}
            story.add("meter.read", reader * 100 + visit * 9 * HOUR, target=f"article {visit}", **fields)
    findings = found(story)
    assert surest(findings, "meter-evasion-agent", "user_agent", "tool") >= 0.9
    assert surest(findings, "meter-evasion-agent", "user_agent", "browser") < 0.7


def test_an_archive_that_is_read_by_many_addresses_together_is_scraped() -> None:
    story = Story()
    chance = random.Random(11)
    for index in range(1200):
        which = index % 60
        fields = {"device": f"bot {which}", "address": f"bot {which}", "user_agent": f"browser {which % 30}"}
        story.add("meter.read", index * 6, target=f"article {1000 + index}", **fields)
    for reader in range(100):
        for _ in range(12):
            page = min(5000, int(chance.paretovariate(1.2)))
            fields = {"device": f"own {reader}", "address": f"home {reader}", "user_agent": f"browser {reader % 30}"}
            story.add("meter.read", chance.random() * 2 * HOUR, target=f"article {page}", **fields)
    seen = accused(found(story), "content_scraping", least=0.9)
    assert len(seen & {hashed("address", f"bot {which}") for which in range(60)}) > 50
    assert not seen & {hashed("address", f"home {reader}") for reader in range(100)}
