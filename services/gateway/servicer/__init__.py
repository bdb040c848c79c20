"""From protobuf to use cases and back."""

from services.gateway.servicer.firewall import FirewallServicer

__all__ = ["FirewallServicer"]
