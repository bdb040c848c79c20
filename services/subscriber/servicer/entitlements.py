"""Owns gatefold.subscriber.v1.EntitlementService at the wire."""

from gatefold.subscriber.v1 import entitlement_pb2, entitlement_pb2_grpc

from libs import ids
from services.subscriber.usecases import present
from services.subscriber.usecases.entitlements import Entitlements


class EntitlementServicer(entitlement_pb2_grpc.EntitlementServiceServicer):
    """What readers may use."""

    def __init__(self, entitlements: Entitlements) -> None:
        self._entitlements = entitlements

    async def DecideAccess(
        self, request: entitlement_pb2.DecideAccessRequest, context: object
    ) -> entitlement_pb2.DecideAccessResponse:
        """Answers the paywall."""
        asked = request.subscriber_id
        subject = ids.decode("subj", asked, field="subscriber_id") if asked else None
        return present.decision(await self._entitlements.decide_access(request.feature, subject))

    async def ListEntitlements(
        self, request: entitlement_pb2.ListEntitlementsRequest, context: object
    ) -> entitlement_pb2.ListEntitlementsResponse:
        """Lists a reader's rights."""
        subject = ids.decode("subj", request.subscriber_id, field="subscriber_id")
        rights = await self._entitlements.list_entitlements(subject)
        return entitlement_pb2.ListEntitlementsResponse(
            data=[present.entitlement(right, active) for right, active in rights]
        )
