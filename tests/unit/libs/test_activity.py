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
from libs.activity import ActivityStream, Pseudonyms, device_of, network_of, shard_of
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
