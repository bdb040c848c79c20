"""Owns building what finds out who calls: keys, tokens, cookies, and ends of sessions."""

import time
from dataclasses import dataclass

from libs.process import Process
from services.gateway.clients import Backends
from services.gateway.config import GatewayConfig
from services.gateway.http.api_keys import ApiKeys
from services.gateway.http.authentication import Authentication
from services.gateway.http.cookies import Cookies
from services.gateway.http.leaks import Leaks
from services.gateway.http.session_ends import SessionEnds
from services.gateway.http.tokens import KeySet, Tokens
from services.gateway.wiring.stores import Stores


@dataclass(frozen=True)
class Credentials:
    """What knows callers."""

    authentication: Authentication
    cookies: Cookies
    leaks: Leaks


def credentials(process: Process, settings: GatewayConfig, stores: Stores, backends: Backends) -> Credentials:
    """Builds it; the process is ready once keys and ends of sessions are known."""
    keys = KeySet(backends.key_set, monotonic=time.monotonic)
    process.ready(keys.loaded, "key_set")
    ends = SessionEnds(stores.blocking(), backends.session_ends, monotonic=time.monotonic, telemetry=process.telemetry)
    process.ready(ends.loaded, "session_ends")
    process.background("session ends", ends.follow, in_closed_mode=True)
    api_keys = ApiKeys(backends.resolve_api_key, settings.key_pepper, monotonic=time.monotonic)
    leaks = Leaks(api_keys, backends.report_leaked_api_key, process.telemetry)
    process.on_drain(leaks.close)
    tokens = Tokens(keys, ends, issuer=settings.issuer, clock=process.clock)
    cookies = Cookies(backends.open_cookie, backends.use_cookie, tokens, clock=process.clock, monotonic=time.monotonic)
    return Credentials(Authentication(api_keys, tokens, cookies), cookies, leaks)
