"""Owns the list of calls that are simulated."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from infra.local.stripe import (
    accounts,
    charges,
    customers,
    events,
    payment_intents,
    payment_methods,
    setup_intents,
    webhook_endpoints,
)
from infra.local.stripe.problems import Json, unknown_url


@dataclass(frozen=True)
class Route:
    """One call: its method and path, what carries it out, and whether a publishable key may make it."""

    method: str
    path: str
    handler: Callable[..., Json]
    publishable: bool = False


_ROUTES = (
    Route("GET", "/v1/account", accounts.retrieve),
    Route("GET", "/v1/charges/{id}", charges.retrieve),
    Route("GET", "/v1/customers", customers.index),
    Route("POST", "/v1/customers", customers.create),
    Route("GET", "/v1/customers/{id}", customers.retrieve),
    Route("POST", "/v1/customers/{id}", customers.update),
    Route("GET", "/v1/customers/{id}/payment_methods", payment_methods.index_of_customer),
    Route("GET", "/v1/events", events.index),
    Route("GET", "/v1/events/{id}", events.retrieve),
    Route("GET", "/v1/payment_intents", payment_intents.index),
    Route("POST", "/v1/payment_intents", payment_intents.create),
    Route("GET", "/v1/payment_intents/{id}", payment_intents.retrieve, publishable=True),
    Route("POST", "/v1/payment_intents/{id}", payment_intents.update),
    Route("POST", "/v1/payment_intents/{id}/cancel", payment_intents.cancel),
    Route("POST", "/v1/payment_intents/{id}/confirm", payment_intents.confirm, publishable=True),
    Route("POST", "/v1/payment_methods", payment_methods.create, publishable=True),
    Route("GET", "/v1/payment_methods/{id}", payment_methods.retrieve),
    Route("POST", "/v1/payment_methods/{id}/attach", payment_methods.attach),
    Route("POST", "/v1/payment_methods/{id}/detach", payment_methods.detach),
    Route("GET", "/v1/setup_intents", setup_intents.index),
    Route("POST", "/v1/setup_intents", setup_intents.create),
    Route("GET", "/v1/setup_intents/{id}", setup_intents.retrieve, publishable=True),
    Route("POST", "/v1/setup_intents/{id}", setup_intents.update),
    Route("POST", "/v1/setup_intents/{id}/cancel", setup_intents.cancel),
    Route("POST", "/v1/setup_intents/{id}/confirm", setup_intents.confirm, publishable=True),
    Route("GET", "/v1/webhook_endpoints", webhook_endpoints.index),
    Route("POST", "/v1/webhook_endpoints", webhook_endpoints.create),
    Route("GET", "/v1/webhook_endpoints/{id}", webhook_endpoints.retrieve),
    Route("POST", "/v1/webhook_endpoints/{id}", webhook_endpoints.update),
    Route("DELETE", "/v1/webhook_endpoints/{id}", webhook_endpoints.delete),
)


class Routes:
    """Finds what carries a call out."""

    def __init__(self) -> None:
        self._compiled = [
            (route, re.compile(re.escape(route.path).replace(r"\{id\}", r"([A-Za-z0-9_]+)"))) for route in _ROUTES
        ]

    def find(self, method: str, path: str) -> tuple[Route, tuple[str, ...]]:
        """Returns the route and the ids in the path; raises 404 when there is none."""
        for route, pattern in self._compiled:
            match = pattern.fullmatch(path)
            if match is not None and route.method == method:
                return route, match.groups()
        raise unknown_url(method, path)

    def __iter__(self) -> Iterator[Route]:
        return iter(_ROUTES)
