"""What is known of addresses and programs: kept while it holds, and never more than there is room for."""

from pathlib import Path

import pytest
from gatefold.activity.v1.activity_pb2 import Activity

from libs.activity import Pseudonyms, network_of, shard_of
from libs.caller import Caller, CallerKind
from libs.telemetry import Telemetry
from services.gateway.http import clients
from services.gateway.http.clients import NOBODY, UNNAMED, Clients
from services.gateway.http.places import Place, Places
from tests.unit.services.gateway.http.test_places import write

ADDRESS, HIDDEN = "203.0.113.9", Pseudonyms("pepper")
BERLIN = {"country": {"iso_code": "DE"}, "location": {"latitude": 52.52, "longitude": 13.4}}
PARIS = {"country": {"iso_code": "FR"}}


def nowhere() -> Clients:
    return Clients(HIDDEN, Places(None, None, Telemetry("tests")))


async def test_a_place_that_changes_counts_for_the_next_request(tmp_path: Path) -> None:
    path = write(tmp_path / "c.mmdb", "GeoLite2-City", {"203.0.113.0/24": BERLIN})
    places = Places(path, None, Telemetry("tests"))
    found = Clients(HIDDEN, places)
    before = found.of(ADDRESS)
    assert (before.place, found.of(ADDRESS)) == (Place("DE", 0, 53, 13), before)
    told = Activity.FromString(before.told)
    assert (told.geo_country_iso_code, told.geo_location_lat, told.geo_location_lon) == ("DE", 53, 13)

    write(path, "GeoLite2-City", {"203.0.113.0/24": PARIS})
    places.refresh()

    after = found.of(ADDRESS)
    assert after.place.country == "FR"
    told = Activity.FromString(after.told)
    assert (told.geo_country_iso_code, told.HasField("geo_location_lat")) == ("FR", False)
    await places.close()


def test_an_address_is_told_by_its_hashes_and_watched_where_its_network_is() -> None:
    found = nowhere().of(ADDRESS)
    told = Activity.FromString(found.told)
    assert told == Activity(
        client_address_hash=HIDDEN.of("address", ADDRESS), client_network_hash=HIDDEN.of("network", network_of(ADDRESS))
    )
    assert (found.address_hash, found.network_hash) == (told.client_address_hash, told.client_network_hash)
    assert found.shard == shard_of(told)


def test_of_no_address_nothing_is_known() -> None:
    assert nowhere().of("") is NOBODY
    assert NOBODY.shard == shard_of(Activity())


def test_addresses_programs_and_callers_take_no_more_room_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "MOST_CLIENTS", 10)
    monkeypatch.setattr(clients, "MOST_PROGRAMS", 10)
    found = nowhere()
    monkeypatch.setattr(clients, "MOST_ACTORS", 10)
    for number in range(100):
        found.of(f"192.0.2.{number}")
        found.actor(Caller(CallerKind.SUBSCRIBER, f"subj_{number}"), UNNAMED)
        assert len(found._actors) <= 10
        found.program(f"program/{number}")
        assert len(found) <= 10
    assert found._program.cache_info().currsize <= 10
    found.program("x" * (clients.LONGEST_KEPT + 1))
    assert found._program.cache_info().misses == 100, "a long one is not kept"


def test_a_program_is_told_by_the_hash_of_what_counts_of_it_and_may_claim_to_be_a_crawler() -> None:
    found = nowhere()
    assert found.program("") is UNNAMED
    assert found.program("Mozilla/5.0 Firefox").claim is None
    crawler = found.program("Mozilla/5.0 (compatible; Googlebot/2.1)").claim
    assert crawler is not None
    assert crawler.name == "googlebot"
    long = found.program("x" * 5000)
    assert (long.text, long.told) == ("x" * 300, found.program("x" * 300).told)
    assert Activity.FromString(long.told).user_agent_hash == HIDDEN.of("user_agent", "x" * 300)
