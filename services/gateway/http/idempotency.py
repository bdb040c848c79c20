"""Owns the Idempotency-Key header; what a repeated key means is decided by the services (libs/idempotency)."""

import re

from gatefold.edge.v1 import policy_pb2

from libs import errors
from services.gateway.http.contracts import Endpoint
from services.gateway.http.exchange import Exchange

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def key_of(exchange: Exchange, endpoint: Endpoint) -> str | None:
    """Returns the key that goes to the service; None where a key has no meaning.

    Raises `malformed("idempotency_key_malformed")`, and `malformed("idempotency_key_missing")` where one is required.
    """
    if not endpoint.policy.keyed:
        return None
    sent = exchange.request.headers.getall("Idempotency-Key", [])
    if not sent:
        if endpoint.policy.message.idempotency == policy_pb2.IDEMPOTENCY_REQUIRED:
            raise errors.malformed("idempotency_key_missing", "This needs an Idempotency-Key header.")
        return None
    if len(sent) > 1 or _KEY.fullmatch(sent[0]) is None:
        raise errors.malformed(
            "idempotency_key_malformed", "An Idempotency-Key has 1 to 255 printable ASCII characters without spaces."
        )
    return sent[0]
