"""Owns Stripe accounts: which one an API key belongs to, and what it says of itself."""

import re

from infra.local.stripe.engine import Call, Engine, fingerprint
from infra.local.stripe.problems import Json, unauthenticated
from infra.local.stripe.store import Scope

_KEY = re.compile(r"(?P<kind>sk|rk|pk)_(?P<mode>test|live)_sim_(?P<name>[a-z0-9]{3,60})(_[A-Za-z0-9]+)?")


def identify(key: str) -> tuple[Scope, bool]:
    """Returns whose key it is, and whether it is publishable.

    Every key `sk_test_sim_<name>` is one of the account of that name, as are `pk_…`, `rk_…` and live ones; a further
    `_<text>` makes another key of the same account. Raises 401 for any other key.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        masked = f"{key[:8]}{'*' * max(0, len(key) - 12)}{key[-4:]}" if len(key) > 12 else "*" * len(key)
        raise unauthenticated(f"Invalid API Key provided: {masked}")
    return Scope(f"acct_1{fingerprint(match['name'])[:16]}", match["mode"] == "live"), match["kind"] == "pk"


def retrieve(engine: Engine, call: Call) -> Json:
    """GET /v1/account."""
    call.params.only({"expand"})
    return {
        "id": call.scope.account,
        "object": "account",
        "business_profile": {"mcc": None, "name": "Simulated account", "support_email": None, "url": None},
        "business_type": "company",
        "capabilities": {"card_payments": "active", "transfers": "active"},
        "charges_enabled": True,
        "country": "US",
        "default_currency": "usd",
        "details_submitted": True,
        "email": "stripe@publisher.test",
        "metadata": {},
        "payouts_enabled": True,
        "settings": {"dashboard": {"display_name": "Simulated account", "timezone": "Etc/UTC"}},
        "type": "standard",
    }
