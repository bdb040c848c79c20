"""Owns how many wrong passwords are too many: buckets, the wait that grows, and whom an address stands for."""

import hmac
import ipaddress
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

UNTRUSTED = ""
"""The field of everybody who shows no device of the principal's, from no network of theirs."""

KNOWN_FOR = timedelta(days=30)
"""How long after a sign-in its network counts as the principal's."""
MOST_NETWORKS = 50
"""Of one principal; the newest are kept."""


@dataclass(frozen=True)
class Rule:
    """How a bucket fills; times in milliseconds."""

    free: int
    """Attempts without a wait."""
    most: int
    """Attempts in a row; then nothing is tried until the bucket is forgotten, or emptied."""
    first_wait: int
    longest_wait: int
    forget: int
    """A bucket that counted nothing for so long is empty."""


@dataclass(frozen=True)
class Bucket:
    """One counter; buckets of one key are emptied together."""

    key: bytes
    field: str
    rule: Rule


@dataclass(frozen=True)
class State:
    """What a bucket holds: attempts, when the next may be made, and when the last was; Unix milliseconds."""

    tries: int = 0
    until: int = 0
    last: int = 0


@dataclass(frozen=True)
class Trust:
    """To whom devices and networks are known: those of a former password are strangers, whoever knew it."""

    owner: UUID
    principal: UUID
    password_version: int

    @property
    def bytes(self) -> bytes:
        """Returns what keys of devices and networks are made of."""
        return self.owner.bytes + self.principal.bytes + self.password_version.to_bytes(8, "big")


def wait_left(state: State, rule: Rule, now: int) -> int:
    """Returns for how long nothing may be tried; 0 when it may."""
    return 0 if now - state.last >= rule.forget else max(0, state.until - now)


def counted(state: State, rule: Rule, now: int) -> State:
    """Returns the bucket with one attempt more."""
    tries = 1 if now - state.last >= rule.forget else state.tries + 1
    wait = 0
    if tries >= rule.most:
        wait = rule.forget
    elif tries >= rule.free:
        wait = min(rule.longest_wait, rule.first_wait * 2 ** min(tries - rule.free, 30))
    return State(tries, now + wait if wait else 0, now)


def returned(state: State, rule: Rule) -> State:
    """Returns the bucket with one attempt less, which was none."""
    tries = max(0, state.tries - 1)
    return State(tries, 0 if tries < rule.free else state.until, state.last)


def key_of(secret: bytes, use: bytes, *parts: bytes) -> bytes:
    """Returns what a bucket is known by: HMAC-SHA-256, so that the store learns neither address nor name."""
    return hmac.digest(secret, b"\0".join((use, *parts)), "sha256")


def principal_key(secret: bytes, owner: UUID, email_index: bytes) -> bytes:
    """Returns the key of whoever has an address, or nobody: unknown addresses fill buckets as known ones do."""
    return key_of(secret, b"principal", owner.bytes, email_index)


def network_key(secret: bytes, trust: Trust, network: str) -> bytes:
    """Returns what a network is known by to one principal alone: nobody's networks can be compared with another's."""
    return key_of(secret, b"known network", trust.bytes, network.encode())


def network_of(address: str | None, *, wide: bool = False) -> str:
    """Returns the /32 or /64 that one client has, or the /24 or /48 around it; empty when the address is unknown."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return ""
    length = (24 if wide else 32) if parsed.version == 4 else (48 if wide else 64)
    return str(ipaddress.ip_network((parsed, length), strict=False))
