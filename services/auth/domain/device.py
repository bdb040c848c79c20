"""Owns what a session says of the device it was started on."""

import json
from dataclasses import dataclass

LONGEST = 300


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
