"""Owns a limit: one counter that a request is held against."""

from dataclasses import dataclass, field
from enum import Enum


class Away(Enum):
    """What becomes of the requests of a rate class while the store is away."""

    LOCAL = "local"
    """Each gateway counts alone."""
    OPEN = "open"
    """They are let through."""
    CLOSED = "closed"
    """They are refused with 503."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One counter that a request is held against."""

    name: str
    """As in the RateLimit headers: `read-server`."""
    key: str
    """Of the counter in the store."""
    amount: int
    seconds: int
    strict: bool = False
    """Guards guesses: never leased, and tighter while each gateway counts alone."""
    shadow: bool = False
    """Counted and told of, never a reason to refuse."""
    away: Away = Away.LOCAL
    emission: int = field(init=False)
    """Microseconds in which one unit comes back, never too few."""
    tolerance: int = field(init=False)
    """Microseconds of backlog up to which requests are let through: the whole quota at once."""
    policy: str = field(init=False)
    """As in the RateLimit-Policy header."""

    def __post_init__(self) -> None:
        emission = -(-self.seconds * 1_000_000 // self.amount)
        object.__setattr__(self, "emission", emission)
        object.__setattr__(self, "tolerance", emission * self.amount)
        object.__setattr__(self, "policy", f'"{self.name}";q={self.amount};w={self.seconds}')
