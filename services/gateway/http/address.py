"""Owns the client's address: the connection's peer, or what trusted proxies say of it."""

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MOST_HOPS = 20
_WITH_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?")
"""Some proxies write ports, and IPv6 in brackets as URLs have it."""

Peer = tuple[str, int]


class ClientAddress:
    """Tells whom a request came from.

    Only the peer is true; X-Forwarded-For is believed from trusted proxies alone. Other headers that name a client
    (Forwarded, X-Real-IP, True-Client-IP and their like) are never read: with two sources the one that a proxy does
    not overwrite is the client's to forge.
    """

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted: tuple[_Network, ...] = tuple(ipaddress.ip_network(network) for network in trusted)
        self._known = lru_cache(4096)(self._looked_up)

    def of(self, peer: Peer, forwarded_for: Sequence[str]) -> str:
        """Returns the address for a peer and the X-Forwarded-For headers, in order; empty when unknown.

        The list is walked from the right, as each hop appended to it: the first address that is no trusted proxy's is
        the client's. What a client wrote into the header itself stands further left and is never reached. An entry
        that is no address ends the walk at the last hop that could be read.
        """
        address, trusted = self._known(peer[0])
        if not (trusted and forwarded_for):
            return address
        entries = [entry.strip() for header in forwarded_for for entry in header.split(",")]
        for entry in reversed(entries[-_MOST_HOPS:]):
            hop, trusted = self._known(entry)
            if not hop:
                break
            address = hop
            if not trusted:
                break
        return address

    def of_peer(self, peer: Peer) -> str:
        """Returns the address of a peer that said nothing which could be read; empty when it is a trusted proxy, which
        only handed on what some client sent.
        """
        address, trusted = self._known(peer[0])
        return "" if trusted else address

    def trusts(self, peer: Peer) -> bool:
        """Tells whether a peer is a trusted proxy."""
        return self._known(peer[0])[1]

    def _looked_up(self, text: str) -> tuple[str, bool]:
        parsed = _parsed(text)
        if parsed is None:
            return "", False
        return str(parsed), any(parsed.version == network.version and parsed in network for network in self._trusted)


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Returns what limits count an address by: itself, or the /64 of an IPv6 address, which one client owns whole."""
    parsed = _parsed(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False).network_address) + "/64"
    return address if parsed is None else str(parsed)


def _parsed(text: str) -> _Address | None:
    written = _WITH_PORT.fullmatch(text)
    if written is not None:
        text = written[1] or written[2]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.scope_id is not None:
            return None  # says more than an address, in the sender's own words
    return address
