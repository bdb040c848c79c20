"""Tests of libs/activity without a store: what is hashed, where it goes, and how much is held."""

import hashlib
import hmac
import io
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from gatefold.activity.v1 import activity_pb2

from libs import activity
from libs.activity import ActivityStream, Pseudonyms, Routing, batch_of, device_of, network_of, shard_of
from libs.telemetry import Telemetry


def test_a_pseudonym_is_the_keyed_hash_that_the_contract_states() -> None:
    key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"gatefold/activity").derive(b"pepper")
    expected = hmac.new(key, b"address:203.0.113.7", hashlib.sha256).digest()[:16]
    assert Pseudonyms("pepper").of("address", "203.0.113.7") == expected


def test_services_with_the_same_pepper_hash_alike_and_others_do_not() -> None:
    one, same, other = Pseudonyms("pepper"), Pseudonyms("pepper"), Pseudonyms("salt")
    for text in ("203.0.113.7", "a" * 5000):
        assert one.of("address", text) == same.of("address", text) == one.of("address", text)
        assert one.of("address", text) != other.of("address", text)
        assert one.of("address", text) != one.of("target", text)


def test_nothing_stays_nothing_and_what_is_no_text_is_hashed_all_the_same() -> None:
    pseudonyms = Pseudonyms("pepper")
    assert pseudonyms.of("actor", "") == b""
    assert len(pseudonyms.of("user_agent", "\udcff")) == 16
    assert pseudonyms.of("user_agent", "\udcff") != pseudonyms.of("user_agent", "\udcfe")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1::/48"),
        ("", ""),
        ("nonsense", ""),
        ("203.0.113.7:80", ""),
    ],
)
def test_the_network_of_an_address_is_what_one_household_or_office_has(address: str, network: str) -> None:
    assert network_of(address) == network


def test_an_accounts_activities_go_to_one_shard_and_accounts_are_spread() -> None:
    def of(account: str, network: bytes) -> int:
        return shard_of(activity_pb2.Activity(account_id=account, client_network_hash=network))

    assert len({of("acct_1", bytes([number])) for number in range(64)}) == 1
    assert {of(f"acct_{number}", b"") for number in range(200)} == set(range(activity.SHARDS))
    assert {of("", bytes([number])) for number in range(200)} == set(range(activity.SHARDS))


class Away:
    """A store that takes nothing."""

    def __init__(self) -> None:
        self.asked = 0

    def pipeline(self, **_: Any) -> "Away":
        return self

    def xadd(self, *_: Any, **__: Any) -> None:
        self.asked += 1

    async def execute(self, **_: Any) -> list[Any]:
        raise OSError


async def test_a_stream_is_bounded_while_nobody_takes_it_and_counts_what_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(activity, "MOST_HELD", 100)
    telemetry = Telemetry("tests", stream=io.StringIO())
    stream = ActivityStream(Away(), telemetry)  # type: ignore[arg-type]
    for _ in range(250):
        stream.record(activity_pb2.Activity(account_id="acct_1"))
    assert telemetry.registry.get_sample_value("gatefold_activities_lost_total") == 150
    assert not await stream.flush()
    assert telemetry.registry.get_sample_value("gatefold_activities_lost_total") == 250


async def test_closing_does_not_wait_twice_for_a_store_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "MOST_IN_BATCH", 10)
    telemetry, away = Telemetry("tests", stream=io.StringIO()), Away()
    stream = ActivityStream(away, telemetry)  # type: ignore[arg-type]
    for _ in range(100):
        stream.record(activity_pb2.Activity(account_id="acct_1"))
    await stream.close()
    assert away.asked == 1
    assert telemetry.registry.get_sample_value("gatefold_activities_lost_total") == 100
    await stream.close()
    assert away.asked == 1, "nothing is left"


def test_an_update_makes_no_new_device_and_two_people_share_none() -> None:
    old, new = "Mozilla/5.0 (X11) Firefox/131.0", "Mozilla/5.0 (X11) Firefox/132.0.1"
    assert device_of("subj_1", old) == device_of("subj_1", new)
    assert len({device_of("subj_1", old), device_of("subj_2", old), device_of("subj_1", "Mozilla/5.0 Chrome/1.0")}) == 3
    assert (device_of("", old), device_of("subj_1", "")) == ("", "")


def test_a_batch_of_what_was_serialised_is_the_batch_of_what_it_was() -> None:
    names = [f"{number}" * length for number, length in enumerate((0, 100, 125, 126, 127, 128, 16_381, 40_000))]
    made = [activity_pb2.Activity(http_route=name) for name in names]
    for lost in (0, 7):
        batch = batch_of([one.SerializeToString() for one in made], lost)
        assert activity_pb2.ActivityBatch.FromString(batch) == activity_pb2.ActivityBatch(activities=made, lost=lost)


def test_activities_of_parts_in_any_order_are_sent_as_the_library_writes_them() -> None:
    parts = [{"session_hash": b"s"}, {"client_address_hash": b"a"}, {"duration_micros": 5}, {"account_id": "acct_1"}]
    packed = b"".join(activity_pb2.Activity(**part).SerializeToString() for part in parts)
    whole = activity_pb2.Activity(**{name: value for part in parts for name, value in part.items()})

    assert batch_of([packed]) == activity_pb2.ActivityBatch(activities=[whole]).SerializeToString() != packed


WHOLE, ACCOUNT, PLATFORM = (
    activity_pb2.Activity.REACH_UNSPECIFIED,
    activity_pb2.Activity.REACH_ACCOUNT,
    activity_pb2.Activity.REACH_PLATFORM,
)


def happened(event: str, account: str = "acct_1", network: bytes = b"n", **more: Any) -> activity_pb2.Activity:
    made = activity_pb2.Activity(
        event_name=event, account_id=account, client_network_hash=network, request_id="r", **more
    )
    made.time.seconds = 1_000_000
    return made


def apart(event: str = "sign_in.password", **more: Any) -> activity_pb2.Activity:
    """Returns an activity whose network is watched elsewhere than its account."""
    here = shard_of(happened(event))
    networks = (bytes([number]) for number in range(256))
    return next(
        one
        for one in (happened(event, network=network, **more) for network in networks)
        if shard_of(happened(event, "", one.client_network_hash)) != here
    )


def test_what_happened_is_told_once_for_the_account_and_once_for_the_platform() -> None:
    one = apart(target_hash=b"t" * 16)
    home, around = shard_of(one), shard_of(happened("", "", one.client_network_hash))
    [(first, own), (second, told)] = Routing().places(one)
    assert (first, own.reach, second, told.reach) == (home, ACCOUNT, around, PLATFORM)
    told.reach = own.reach
    assert told == own


def test_all_of_one_network_is_told_to_one_shard_whatever_the_account() -> None:
    routing, network = Routing(), b"attacker"
    told = [
        shard
        for number in range(100)
        for shard, one in routing.places(happened("sign_in.password", f"acct_{number}", network))
        if one.reach != ACCOUNT
    ]
    assert len(told) == 100
    assert set(told) == {shard_of(happened("", "", network))}


def test_where_one_shard_watches_both_it_is_told_once() -> None:
    same = next(
        one
        for one in (happened("sign_in.password", network=bytes([number])) for number in range(256))
        if shard_of(happened("", "", one.client_network_hash)) == shard_of(one)
    )
    for one in (same, happened("sign_in.password", ""), happened("sign_in.password", network=b"")):
        [(shard, told)] = Routing().places(one)
        assert (shard, told.reach) == (shard_of(one), WHOLE)


def test_of_requests_is_told_who_is_met_where_now_and_then() -> None:
    routing, known = Routing(), {"caller_kind": "SUBSCRIBER", "http_response_status_code": 200, "actor_hash": b"a"}

    def reaches(**more: Any) -> list[int]:
        seconds = more.pop("seconds", 1_000_000)
        one = apart("", **{**known, **more})
        one.time.seconds = seconds
        return [told.reach for _, told in routing.places(one)]

    # The account's shard goes on judging requests: they are told of elsewhere so that whoever is met there is spared.
    assert reaches() == [WHOLE, PLATFORM]
    assert reaches() == [WHOLE]
    assert reaches(actor_hash=b"b") == [WHOLE, PLATFORM]
    assert reaches(client_address_hash=b"c") == [WHOLE, PLATFORM]
    assert reaches(seconds=1_000_000 + 8 * 3600) == [WHOLE, PLATFORM]
    for nobody in ({"caller_kind": "SECRET_KEY"}, {"http_response_status_code": 403}, {"caller_kind": "ANONYMOUS"}):
        assert reaches(actor_hash=b"d", **nobody) == [WHOLE]


def test_whom_it_met_is_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "_MOST_MET", 10)
    routing = Routing()
    for number in range(100):
        one = apart("", caller_kind="STAFF", http_response_status_code=200, actor_hash=bytes([number]))
        assert len(routing.places(one)) == 2
    assert len(routing._met) == 10
