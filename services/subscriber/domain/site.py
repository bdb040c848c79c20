"""Owns web sites of a publisher, and the one spelling of an origin."""

import re
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from libs import errors

_ORIGIN = re.compile(r"(https?)://([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::([0-9]{1,5}))?", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Site:
    """A web site from which browsers may call."""

    id: UUID
    name: str
    origin: str
    created_at: datetime


def serialized_origin(text: str) -> str:
    """Returns the origin as browsers send it: lower case, without the scheme's own port (RFC 6454, 6.2).

    Raises `invalid("origin_malformed")` for anything that is not scheme, host and port.
    """
    match = _ORIGIN.fullmatch(text.strip().lower())
    if match is None:
        raise _malformed()
    scheme, host, port = match.groups()
    if len(host) > 253 or any(not 1 <= len(label) <= 63 for label in host.split(".")):
        raise _malformed()
    if port is None or int(port) == _DEFAULT_PORTS[scheme]:
        return f"{scheme}://{host}"
    if not 1 <= int(port) <= 65535:
        raise _malformed()
    return f"{scheme}://{host}:{int(port)}"


def _malformed() -> errors.GatefoldError:
    return errors.invalid(
        "origin_malformed", "An origin is a scheme, a host and a port, as https://news.example.", field="origin"
    )
