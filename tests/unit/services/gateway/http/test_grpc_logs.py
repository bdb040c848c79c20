"""How gRPC writes who called."""

import pytest

from services.gateway.http.grpc_logs import peer_of


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("ipv4:192.0.2.1:4711", ("192.0.2.1", 4711)),
        ("ipv6:[2001:db8::1]:4711", ("2001:db8::1", 4711)),
        ("ipv6:%5B2001:db8::1%5D:4711", ("2001:db8::1", 4711)),
        ("unix:/run/gatefold/x.sock", ("", 0)),
        ("ipv4:192.0.2.1", ("", 0)),
        ("", ("", 0)),
    ],
)
def test_a_peer_is_an_address_and_a_port_or_nobody(text: str, peer: tuple[str, int]) -> None:
    assert peer_of(text) == peer
