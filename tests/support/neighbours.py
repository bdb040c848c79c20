"""Owns the services around the one that is tested: their names, their keys for each other, and who speaks for them."""

import base64

from libs.caller import Caller, CallerKind, CallerSigner
from libs.clock import SystemClock

SERVICES = ("gateway", "auth", "subscriber", "billing", "notify", "abuse")


def pair_keys() -> dict[str, str]:
    """Returns a key for each pair of services, as the supervisor would write them."""
    return {pair: base64.b64encode(key).decode() for pair, (key,) in pair_secrets().items()}


def pair_secrets() -> dict[str, tuple[bytes, ...]]:
    """Returns the same keys as services read them."""
    return {
        f"{issuer}>{audience}": (f"{issuer}-{audience}".encode().ljust(32, b"-"),)
        for issuer in SERVICES
        for audience in SERVICES
    }


class Vouching(CallerSigner):
    """Signs as the edge, and service callers as the service that they name."""

    def __init__(self, clock: SystemClock) -> None:
        super().__init__("gateway", pair_secrets(), clock)
        self._signers = {name: CallerSigner(name, pair_secrets(), clock) for name in SERVICES}

    def sign(self, who: Caller, audience: str) -> str:
        if who.kind is CallerKind.SERVICE:
            return self._signers[who.actor.removeprefix("service:")].sign(who, audience)
        return super().sign(who, audience)
