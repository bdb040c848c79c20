"""Owns the client's address: the socket's peer, or what trusted proxies say of it."""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MOST_HOPS = 20


class ClientAddress:
    """Tells whom a request came from. Only the peer is true; X-Forwarded-For is believed from trusted proxies alone."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted: tuple[_Network, ...] = tuple(ipaddress.ip_network(network) for network in trusted)

    def of(self, peer: object, forwarded_for: Sequence[str]) -> str:
        """Returns the address for a socket's peer name and the X-Forwarded-For headers, in order; empty when unknown.

        The list is walked from the right, as each hop appended to it: the first address that is no trusted proxy's is
        the client's. What a client wrote into the header itself stands further left and is never reached. An entry
        that is no address ends the walk at the last hop that could be read.
        """
        address = _parsed(peer[0]) if isinstance(peer, tuple) and peer else None
        if address is None:
            return ""
        if self._trusted and forwarded_for:
            entries = [entry.strip() for header in forwarded_for for entry in header.split(",")]
            for entry in reversed(entries[-_MOST_HOPS:]):
                if not self._is_trusted(address):
                    break
                hop = _parsed(entry)
                if hop is None:
                    break
                address = hop
        return str(address)

    def of_peer(self, peer: object) -> str:
        """Returns the address of a peer that said nothing which could be read; empty when it is a trusted proxy, which
        only handed on what some client sent.
        """
        address = _parsed(peer[0]) if isinstance(peer, tuple) and peer else None
        return "" if address is None or self._is_trusted(address) else str(address)

    def _is_trusted(self, address: _Address) -> bool:
        return any(address.version == network.version and address in network for network in self._trusted)


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Returns what limits count an address by: itself, or the /64 of an IPv6 address, which one client owns whole."""
    parsed = _parsed(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False).network_address) + "/64"
    return address


@lru_cache(maxsize=4096)
def _parsed(text: object) -> _Address | None:
    if not isinstance(text, str):
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
