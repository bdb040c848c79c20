"""Owns building the firewall: rules, what they may ask of a request, challenges, and verdicts of the abuse service."""

import os
import random
import time
from dataclasses import dataclass

from libs.patterns import Patterns
from libs.process import Process
from services.gateway.clients import Backends
from services.gateway.config import GatewayConfig
from services.gateway.domain.bundle import Bundle
from services.gateway.domain.default_rules import default_rules
from services.gateway.domain.firewall import compile_bundle
from services.gateway.domain.hits import HitCounter
from services.gateway.domain.lookback import Lookback
from services.gateway.http.challenge import Challenges
from services.gateway.http.crawlers import Crawlers, SystemResolver
from services.gateway.http.facts import Sources
from services.gateway.http.firewall import Firewall
from services.gateway.http.verdicts import Verdicts
from services.gateway.wiring.activity import Told
from services.gateway.wiring.stores import Stores


@dataclass(frozen=True)
class Guard:
    """What looks at requests before anybody serves them."""

    firewall: Firewall
    challenges: Challenges


def guard(process: Process, settings: GatewayConfig, stores: Stores, backends: Backends, told: Told) -> Guard:
    """Builds it with the default rules in shadow, until a version replaces them."""
    verdicts = Verdicts(
        stores.blocking(),
        # Without an abuse service there is nobody to ask; the stream is read all the same.
        backends.verdicts if "abuse" in settings.grpc.addresses() else None,
        clock=process.clock,
        monotonic=time.monotonic,
        telemetry=process.telemetry,
        changed=told.changed,
    )
    process.background("verdicts", verdicts.follow, in_closed_mode=True)
    crawlers = Crawlers(SystemResolver(), monotonic=time.monotonic, telemetry=process.telemetry)
    process.on_drain(crawlers.close)
    challenges = Challenges(
        settings.key_pepper.reveal(),
        bits=settings.challenge_bits,
        clearance_seconds=settings.clearance_seconds,
        clock=process.clock,
        randomness=os.urandom,
    )
    firewall = Firewall(
        compile_bundle(Bundle(rules=default_rules()), Patterns()),
        Sources(crawlers, verdicts, told.clients),
        challenges,
        HitCounter(),
        Lookback(process.clock.wall, random.random),
        clock=process.clock,
        telemetry=process.telemetry,
        changed=told.changed,
    )
    return Guard(firewall, challenges)
