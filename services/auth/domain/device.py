"""Owns what a session says of the device it was started on, and which devices are taken for the same."""

import hmac
import ipaddress
import json
import re
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

LONGEST = 300
KNOWN_FOR = timedelta(days=90)
"""How long a device that was signed in on is taken for known."""
MOST_KNOWN = 50

_BROWSERS = (("Edg", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
_SYSTEMS = (
    ("Windows", "Windows"),
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)
_VERSION = re.compile(r"[\d._]+")
_AROUND = {4: 16, 6: 32}


@dataclass(frozen=True)
class Device:
    """Personal data: sealed wherever it is kept."""

    user_agent: str = ""
    address: str = ""


def pack(device: Device) -> bytes:
    """Returns the device as it is sealed."""
    return json.dumps({"user_agent": device.user_agent[:LONGEST], "address": device.address}).encode()


def unpack(text: bytes) -> Device:
    """Returns the device of what was sealed."""
    found = json.loads(text)
    return Device(user_agent=found.get("user_agent", ""), address=found.get("address", ""))


def name(device: Device) -> str:
    """Returns what a mail calls the device, in our words alone: a stranger writes the user agent."""
    browser = next((told for mark, told in _BROWSERS if mark in device.user_agent), "")
    system = next((told for mark, told in _SYSTEMS if mark in device.user_agent), "")
    return " on ".join(filter(None, (browser, system)))


def sight(device: Device, place: UUID, principal: UUID, secret: bytes) -> bytes | None:
    """Returns what tells one device of somebody from their others; None where nothing is known of it.

    It stays the same when the browser is updated and when the address changes within a provider's network (/16, /32):
    a mail a week is a mail that nobody reads.
    """
    around = _network(device.address)
    browser = name(device) or _VERSION.sub("", device.user_agent[:LONGEST])
    if not around and not browser:
        return None
    seen = json.dumps([browser, around]).encode()
    return hmac.digest(secret, b"sight" + place.bytes + principal.bytes + seen, "sha256")


def _network(address: str) -> str:
    try:
        held = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(held, ipaddress.IPv6Address) and held.ipv4_mapped is not None:
        held = held.ipv4_mapped
    return str(ipaddress.ip_network((held, _AROUND[held.version]), strict=False))
