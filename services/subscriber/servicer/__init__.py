"""From protobuf to use cases and back: one servicer a gRPC service."""

from services.subscriber.servicer.entitlements import EntitlementServicer
from services.subscriber.servicer.imports import ImportServicer
from services.subscriber.servicer.sites import SiteServicer
from services.subscriber.servicer.subscribers import SubscriberServicer

__all__ = ["EntitlementServicer", "ImportServicer", "SiteServicer", "SubscriberServicer"]
