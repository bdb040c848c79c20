"""Owns building what is told and remembered of requests: their activities, and the refusals that are told again."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from libs.activity import ActivityStream, Pseudonyms
from libs.process import Process
from services.gateway.config import GatewayConfig
from services.gateway.http.activity import Activities
from services.gateway.http.clients import Clients
from services.gateway.http.exchange import RequestIds
from services.gateway.http.places import Places
from services.gateway.http.refusals import Refusals
from services.gateway.wiring.stores import Stores


@dataclass(frozen=True)
class Told:
    """What is told of requests, and what that takes."""

    activities: Activities
    refusals: Refusals
    request_ids: RequestIds
    clients: Clients

    @property
    def changed(self) -> Callable[[], None]:
        """To be called when what requests are held against has changed."""
        return self.refusals.forget


def told(process: Process, settings: GatewayConfig, stores: Stores) -> Told:
    """Builds it; nobody waits for what is told."""
    stream = ActivityStream(stores.apart(), process.telemetry)
    process.on_drain(stream.close)
    process.background("activities", stream.run, in_closed_mode=True)
    pseudonyms = Pseudonyms(settings.key_pepper.reveal())
    places = Places(settings.places_database, settings.networks_database, process.telemetry)
    process.on_drain(places.close)
    process.background("places", places.watch, in_closed_mode=True)
    request_ids = RequestIds(os.urandom)
    clients = Clients(pseudonyms, places)
    activities = Activities(stream, pseudonyms, clients, clock=process.clock)
    refusals = Refusals(request_ids, activities, clock=process.clock, monotonic=time.monotonic)
    process.background("refusals", refusals.run, in_closed_mode=True)
    return Told(activities, refusals, request_ids, clients)
