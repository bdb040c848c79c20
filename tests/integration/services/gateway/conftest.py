"""Owns the gateway that most tests of this folder share."""

from tests.support.shared_gateway import fresh_gateway, gateway, shared_gateway

__all__ = ["fresh_gateway", "gateway", "shared_gateway"]
