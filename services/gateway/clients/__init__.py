"""The services behind the gateway, and what gateways tell each other through the store."""

from services.gateway.clients.back_test_board import BackTestBoard
from services.gateway.clients.backends import Backends, Call
from services.gateway.clients.bundle_feed import BundleFeed
from services.gateway.clients.roll_call import RollCall

__all__ = ["BackTestBoard", "Backends", "BundleFeed", "Call", "RollCall"]
