"""What an entry of a list may be: one form for one thing, wrong lines named, ends in the future."""

import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from libs.errors import GatefoldError
from services.gateway.domain import entries
from services.gateway.domain.bundle import ListKind
from services.gateway.domain.entries import EntryError, normalised, read_lines

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2027, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "written", "kept"),
    [
        (ListKind.NETWORKS, "192.0.2.7", "192.0.2.7/32"),
        (ListKind.NETWORKS, " 2001:DB8:0:0::/64 ", "2001:db8::/64"),
        (ListKind.COUNTRIES, "fr", "FR"),
        (ListKind.ASNS, "as64500", "64500"),
        (ListKind.ASNS, "4294967295", "4294967295"),
        (ListKind.USER_AGENTS, "BadBot/1.0", "badbot/1.0"),
        (ListKind.EMAIL_DOMAINS, "@Example.ORG.", "example.org"),
        (ListKind.EMAIL_DOMAINS, "bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_two_ways_to_write_a_thing_are_kept_as_one(kind: ListKind, written: str, kept: str) -> None:
    assert normalised(kind, written) == kept
    assert normalised(kind, kept) == kept


@pytest.mark.parametrize(
    ("kind", "written", "rule"),
    [
        (ListKind.NETWORKS, "192.0.2.7/24", "host_bits_set"),
        (ListKind.NETWORKS, "0.0.0.0/0", "network_too_wide"),
        (ListKind.NETWORKS, "::/0", "network_too_wide"),
        (ListKind.NETWORKS, "2000::/3", "network_too_wide"),
        (ListKind.NETWORKS, "::ffff:192.0.2.7", "network_malformed"),
        (ListKind.NETWORKS, "fe80::1%eth0", "network_malformed"),
        (ListKind.NETWORKS, "192.0.2.0/255.255.255.0x", "network_malformed"),
        (ListKind.NETWORKS, "example.org", "network_malformed"),
        (ListKind.NETWORKS, "", "network_malformed"),
        (ListKind.COUNTRIES, "FRA", "country_malformed"),
        (ListKind.COUNTRIES, "ÄÖ", "country_malformed"),
        (ListKind.ASNS, "4294967296", "asn_malformed"),
        (ListKind.ASNS, "0", "asn_malformed"),
        (ListKind.ASNS, "٦٤٥٠٠", "asn_malformed"),
        (ListKind.USER_AGENTS, "ab", "user_agent_malformed"),
        (ListKind.USER_AGENTS, "x" * 201, "user_agent_malformed"),
        (ListKind.USER_AGENTS, "bad\x07bot", "user_agent_malformed"),
        (ListKind.EMAIL_DOMAINS, "localhost", "domain_malformed"),
        (ListKind.EMAIL_DOMAINS, "a..example", "domain_malformed"),
        (ListKind.EMAIL_DOMAINS, "-a.example", "domain_malformed"),
        (ListKind.EMAIL_DOMAINS, "x" * 64 + ".example", "domain_malformed"),
        (ListKind.EMAIL_DOMAINS, "ü" * 300 + ".example", "domain_malformed"),
    ],
)
def test_what_is_no_entry_says_why(kind: ListKind, written: str, rule: str) -> None:
    with pytest.raises(EntryError) as refused:
        normalised(kind, written)
    assert refused.value.rule == rule


@given(st.ip_addresses(), st.integers(0, 128))
def test_a_network_is_kept_as_the_same_network(address: ipaddress.IPv4Address, prefix: int) -> None:
    widest = entries.WIDEST[address.version]
    network = ipaddress.ip_network((address, max(widest, min(prefix, address.max_prefixlen))), strict=False)
    assume(getattr(network.network_address, "ipv4_mapped", None) is None)
    assert ipaddress.ip_network(normalised(ListKind.NETWORKS, str(network))) == network


@given(st.sampled_from(ListKind), st.text(max_size=300))
def test_any_text_is_an_entry_that_stays_itself_or_is_refused(kind: ListKind, text: str) -> None:
    try:
        kept = normalised(kind, text)
    except EntryError:
        return
    assert normalised(kind, kept) == kept
    assert 1 <= len(kept) <= 255


class TestLines:
    def test_ends_comments_blanks_and_a_mark_of_order_are_understood(self) -> None:
        read = read_lines(
            ListKind.COUNTRIES,
            b"\xef\xbb\xbfFR\r\n\n# all of it\nde 2027-01-31T00:00:00Z # soon\n  it\t\nFR",
            NOW,
            None,
        )
        assert read.entries == {"FR": None, "DE": LATER, "IT": None}
        assert read.lines == 4

    def test_lines_without_an_end_take_the_usual_one(self) -> None:
        read = read_lines(ListKind.ASNS, b"64500\n64501 2027-01-31T00:00:00+00:00\n", NOW, NOW + timedelta(hours=1))
        assert read.entries == {"64500": NOW + timedelta(hours=1), "64501": LATER}

    def test_parts_of_user_agents_may_have_blanks(self) -> None:
        read = read_lines(ListKind.USER_AGENTS, b"Evil Crawler 2\nSome Thing 2027-01-31T00:00:00Z", NOW, None)
        assert read.entries == {"evil crawler 2": None, "some thing": LATER}

    @pytest.mark.parametrize(
        ("line", "rule"),
        [
            (b"64500 2027-01-31T00:00:00", "end_malformed"),
            (b"64500 2027-13-31T00:00:00Z", "end_malformed"),
            (b"64500 9999-12-31T23:59:59.5-14:00", "end_malformed"),
            (b"64500 2020-01-31T00:00:00Z", "end_past"),
            (b"64500 64501", "asn_malformed"),
            (b"6" * 500, "too_long"),
            (b"64500\x00", "asn_malformed"),
        ],
    )
    def test_a_wrong_line_is_named(self, line: bytes, rule: str) -> None:
        with pytest.raises(GatefoldError) as refused:
            read_lines(ListKind.ASNS, b"64496\n" + line + b"\n", NOW, None)
        assert [(told.field, told.rule) for told in refused.value.violations] == [("line 2", rule)]

    def test_of_many_wrong_lines_the_first_are_named_and_the_rest_not_looked_at(self) -> None:
        with pytest.raises(GatefoldError) as refused:
            read_lines(ListKind.ASNS, b"x\n" * 1_000_000, NOW, None)
        assert [told.field for told in refused.value.violations] == [f"line {number}" for number in range(1, 21)]

    def test_what_is_no_text_is_refused(self) -> None:
        with pytest.raises(GatefoldError, match="file_not_text"):
            read_lines(ListKind.ASNS, b"64500\n\xff\xfe\n", NOW, None)

    def test_more_lines_than_a_list_may_have_are_refused_as_soon_as_they_are_read(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(entries, "MOST_ENTRIES", 10)
        assert read_lines(ListKind.ASNS, b"64500\n" * 10, NOW, None).lines == 10
        with pytest.raises(GatefoldError, match="list_too_long"):
            read_lines(ListKind.ASNS, b"64500\n" * 11 + b"no entry\n", NOW, None)

    @given(st.binary(max_size=600))
    def test_any_bytes_are_read_or_refused(self, data: bytes) -> None:
        try:
            read = read_lines(ListKind.USER_AGENTS, data, NOW, None)
        except GatefoldError:
            return
        assert len(read.entries) <= read.lines
