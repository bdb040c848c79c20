"""Sets of networks against the standard library's ipaddress."""

import ipaddress
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.domain.networks import NetworkMap, normal, parse_address, parse_network

_Any = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(version: int) -> st.SearchStrategy[_Any]:
    width = 32 if version == 4 else 128
    # Few bits vary, so that networks lie within each other and addresses within them.
    numbers = st.integers(0, 2**12 - 1).map(lambda number: number << (width - 12))
    low = st.integers(0, 3)
    made: Any = ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network
    return st.builds(
        lambda number, rest, bits: made((number | rest, bits), strict=False), numbers, low, st.integers(0, width)
    )


either = st.one_of(networks(4), networks(6))


@pytest.mark.case("edge-9")
@settings(max_examples=300, deadline=None)
@given(st.lists(either, max_size=30), st.lists(either, max_size=10))
def test_an_address_is_in_just_those_networks_that_hold_it(held: list[_Any], asked: list[_Any]) -> None:
    found = NetworkMap()
    for number, network in enumerate(held):
        found.add(parse_network(str(network)), 1 << number)
    for around in asked:
        for address in (around.network_address, around.broadcast_address):
            # An IPv6 address that stands for an IPv4 one is that one here.
            within = [
                number
                for number, network in enumerate(held)
                if network.version == address.version and address in network
            ]
            parsed = parse_address(str(address))
            assert found.marks(parsed) == sum(1 << number for number in within)
            longest = found.longest(parsed)
            closest = max((held[number].prefixlen for number in within), default=None)
            assert (longest and longest[2]) == closest
            if longest:
                assert address in ipaddress.ip_network(f"{normal(*longest[:2])}/{longest[2]}")


@pytest.mark.case("edge-9")
def test_a_hundred_thousand_networks_are_exact() -> None:
    chance = random.Random(9)
    held: set[_Any] = set()
    while len(held) < 100_000:
        if chance.random() < 0.7:
            held.add(ipaddress.IPv4Network((chance.getrandbits(32), chance.randint(8, 32)), strict=False))
        else:
            number = (0x2001 << 112) | chance.getrandbits(112)
            held.add(ipaddress.IPv6Network((number, chance.randint(24, 128)), strict=False))
    found = NetworkMap()
    for network in held:
        found.add(parse_network(str(network)))
    assert len(found) == len(held)
    some = chance.sample(sorted(held, key=str), 1_000)
    addresses = [network[chance.randrange(min(network.num_addresses, 2**60))] for network in some]
    addresses += [ipaddress.IPv4Address(chance.getrandbits(32)) for _ in range(1_000)]

    for address in addresses:
        width = address.max_prefixlen
        around = (
            ipaddress.ip_network((int(address) >> (width - bits) << (width - bits), bits))
            if width == 32
            else ipaddress.IPv6Network((int(address), bits), strict=False)
            for bits in range(width, -1, -1)
        )
        expected = next((network for network in around if network in held), None)
        longest = found.longest(parse_address(str(address)))
        assert (longest and f"{normal(*longest[:2])}/{longest[2]}") == (str(expected) if expected else None)


@settings(max_examples=1500, deadline=None)
@given(
    st.one_of(
        either.map(str),
        st.ip_addresses().map(str),
        st.text(alphabet="0123456789abcdefx:./% -", max_size=24),
        st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){3}(/[0-9]{1,3})?", fullmatch=True),
    )
)
def test_what_is_read_is_what_ipaddress_reads(text: str) -> None:
    try:
        expected = ipaddress.ip_network(text)
    except ValueError:
        expected = None
    # What ipaddress allows besides: netmasks, and the name of an interface.
    if expected is not None and ("%" in text or not text.partition("/")[2].isascii() or "." in text.partition("/")[2]):
        expected = None
    mapped = ":" in text and expected is not None and int(expected.network_address) >> 32 == 0xFFFF
    try:
        version, number, bits = parse_network(text)
    except ValueError:
        assert expected is None or (mapped and expected.prefixlen < 96)
        return
    assert expected is not None
    if mapped:
        assert (version, number, bits) == (4, int(expected.network_address) & 0xFFFFFFFF, expected.prefixlen - 96)
    else:
        assert (version, number, bits) == (expected.version, int(expected.network_address), expected.prefixlen)


def test_an_address_that_stands_for_an_ipv4_one_is_that_one() -> None:
    assert parse_address("::ffff:192.0.2.1") == parse_address("192.0.2.1")


def test_entries_end_when_they_are_said_to() -> None:
    inside = parse_address("10.1.2.3")
    found = NetworkMap()
    found.add(parse_network("10.0.0.0/8"), 1, ends_at=10.0)
    found.add(parse_network("10.1.0.0/16"), 1)
    found.add(parse_network("10.1.0.0/16"), 2, ends_at=20.0)
    found.add(parse_network("10.1.0.0/16"), 2, ends_at=30.0)
    found.add(parse_network("10.1.0.0/16"), 1, ends_at=5.0)

    assert (found.next_end, found.marks(inside)) == (10.0, 3)
    found.forget(9.9)
    assert found.marks(parse_address("10.9.9.9")) == 1
    found.forget(10.0)
    assert (found.marks(parse_address("10.9.9.9")), found.marks(inside)) == (0, 3)
    found.forget(20.0)
    assert found.marks(inside) == 3
    found.forget(30.0)
    assert (found.marks(inside), len(found), found.next_end) == (1, 1, float("inf"))
