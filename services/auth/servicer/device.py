"""Owns gatefold.auth.v1.DeviceService."""

from gatefold.auth.v1 import device_pb2, device_pb2_grpc

from libs import ids
from libs.postgres import PLATFORM
from services.auth.usecases.devices import Devices, SignedIn


class DeviceServicer(device_pb2_grpc.DeviceServiceServicer):
    """Devices that people are signed in on."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices

    async def ListDevices(
        self, request: device_pb2.ListDevicesRequest, context: object
    ) -> device_pb2.ListDevicesResponse:
        """Lists one's own sessions."""
        return device_pb2.ListDevicesResponse(data=[_device(one) for one in await self._devices.own()])

    async def EndDevice(self, request: device_pb2.EndDeviceRequest, context: object) -> device_pb2.EndDeviceResponse:
        """Ends one of one's own sessions."""
        await self._devices.end_own(ids.decode("ses", request.id))
        return device_pb2.EndDeviceResponse()

    async def EndOtherDevices(
        self, request: device_pb2.EndOtherDevicesRequest, context: object
    ) -> device_pb2.EndedSessions:
        """Ends one's own other sessions."""
        return device_pb2.EndedSessions(ended=await self._devices.end_others())

    async def SignOut(self, request: device_pb2.SignOutRequest, context: object) -> device_pb2.SignOutResponse:
        """Signs out."""
        await self._devices.sign_out()
        return device_pb2.SignOutResponse()

    async def EndSubscriberSessions(
        self, request: device_pb2.EndSubscriberSessionsRequest, context: object
    ) -> device_pb2.EndedSessions:
        """Ends a reader's sessions."""
        subject = ids.decode("subj", request.subscriber_id, field="subscriber_id")
        return device_pb2.EndedSessions(ended=await self._devices.end_of_subscriber(subject))

    async def EndMemberSessions(
        self, request: device_pb2.EndMemberSessionsRequest, context: object
    ) -> device_pb2.EndedSessions:
        """Ends a member's sessions."""
        member = ids.decode("mem", request.member_id, field="member_id")
        return device_pb2.EndedSessions(ended=await self._devices.end_of_member(member))


def _device(one: SignedIn) -> device_pb2.SignedInDevice:
    held = one.held
    response = device_pb2.SignedInDevice(
        id=ids.encode("ses", held.id),
        account_id=ids.encode("acct", held.account) if held.account != PLATFORM else "",
        user_agent=one.device.user_agent,
        address=one.device.address,
        current=one.current,
        acr=held.acr,
    )
    response.signed_in_at.FromDatetime(held.started_at)
    response.last_used_at.FromDatetime(held.used_at)
    response.expires_at.FromDatetime(held.expires_at)
    return response
