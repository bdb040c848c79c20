"""Owns the names of quotas and what they give unless something replaces them."""

import re
from collections.abc import Mapping

RATE_CLASSES = ("read", "write", "strict", "bulk", "webhook")
"""The rate classes of the contracts."""

WHOM = ("server", "person", "browser", "address", "account")
"""What a quota counts by.

`server`: one secret key; `person`: one member of staff, reader or operator; `browser`: one address that uses a
publishable key, which all readers of a site share; `address`: one address without a credential; `account`: all of an
account together. Of an IPv6 address its /64 counts.
"""

IN_FLIGHT = "in_flight"
"""The class of requests under way at one time, in each gateway by itself."""

WINDOW_SECONDS = 60

_A_MINUTE: Mapping[str, Mapping[str, int]] = {
    "read": {"server": 6000, "person": 600, "browser": 600, "address": 600, "account": 60_000},
    "write": {"server": 1800, "person": 120, "browser": 120, "address": 120, "account": 18_000},
    "strict": {"server": 600, "person": 30, "browser": 30, "address": 30, "account": 6000},
    "bulk": {"server": 60, "person": 20, "browser": 6, "address": 6, "account": 120},
    "webhook": {"server": 6000, "person": 600, "browser": 600, "address": 6000, "account": 60_000},
}
_AT_A_TIME: Mapping[str, int] = {"server": 200, "person": 40, "browser": 40, "address": 100, "account": 500}

DEFAULTS: Mapping[str, tuple[int, int]] = {
    **{
        f"{rate}.{whom}": (amount, WINDOW_SECONDS)
        for rate, amounts in _A_MINUTE.items()
        for whom, amount in amounts.items()
    },
    **{f"{IN_FLIGHT}.{whom}": (amount, 1) for whom, amount in _AT_A_TIME.items()},
}
"""Units and seconds, by name."""

# `route:` holds requests of one RPC against a quota of its own, `rule:` those that a rule of the firewall names.
_NAME = re.compile(
    rf"(?:(?:{'|'.join((*RATE_CLASSES, IN_FLIGHT))})"
    r"|route:/[a-z0-9_]+(?:\.[a-z0-9_]+)*\.[A-Za-z0-9]+/[A-Za-z0-9]+"
    r"|rule:[a-z][a-z0-9_-]{0,39})"
    rf"\.(?:{'|'.join(WHOM)})"
)
_MOST_UNITS = 1_000_000_000
_MOST_SECONDS = 31 * 86_400


def check(name: str, amount: int, seconds: int) -> None:
    """Raises ValueError unless such a quota can be.

    Names are `read.person`, `in_flight.account`, `route:/gatefold.auth.v1.SessionService/CreateSession.address` or
    `rule:scrapers.address`.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"there is no quota {name}")
    if not 0 < amount <= _MOST_UNITS or not 0 < seconds <= _MOST_SECONDS:
        raise ValueError(f"the quota {name} must be between 1 and {_MOST_UNITS} units in 1 to {_MOST_SECONDS} seconds")
