"""Owns building rate limits: quotas, counters in their store, and counting without it."""

import time
from collections.abc import Callable

from libs.process import Process
from services.gateway.config import GatewayConfig
from services.gateway.http.limits import Away, Limits, LocalLimiter, Quotas, RateStore
from services.gateway.wiring.stores import Stores


async def rate_limits(process: Process, settings: GatewayConfig, stores: Stores, changed: Callable[[], None]) -> Limits:
    """Builds them, with the quotas that the settings replace; a version may replace them again."""
    store = RateStore(
        stores.counters(),
        LocalLimiter(time.monotonic),
        seconds=settings.rate_store_seconds,
        monotonic=time.monotonic,
        telemetry=process.telemetry,
    )
    await store.warm()
    process.on_drain(store.close)
    away = {rate: Away(value) for rate, value in settings.away().items()}
    return Limits(
        Quotas(settings.quotas(), away=away, monotonic=time.monotonic),
        store,
        clock=process.clock,
        monotonic=time.monotonic,
        telemetry=process.telemetry,
        changed=changed,
    )
