"""Owns gatefold.auth.v1.RecoveryService."""

from gatefold.auth.v1 import recovery_pb2, recovery_pb2_grpc, session_pb2

from services.auth.servicer.session import tokens
from services.auth.usecases.email_changes import EmailChanges
from services.auth.usecases.magic_links import MagicLinks
from services.auth.usecases.recovery import Recovery
from services.auth.usecases.unlocks import Unlocks


class RecoveryServicer(recovery_pb2_grpc.RecoveryServiceServicer):
    """Ways back in by mail."""

    def __init__(
        self, recovery: Recovery, magic_links: MagicLinks, email_changes: EmailChanges, unlocks: Unlocks
    ) -> None:
        self._recovery = recovery
        self._magic_links = magic_links
        self._email_changes = email_changes
        self._unlocks = unlocks

    async def RequestPasswordReset(
        self, request: recovery_pb2.RequestPasswordResetRequest, context: object
    ) -> recovery_pb2.RequestPasswordResetResponse:
        """Mails a reader a link for a new password."""
        await self._recovery.request_reset(request.email)
        return recovery_pb2.RequestPasswordResetResponse()

    async def RequestStaffPasswordReset(
        self, request: recovery_pb2.RequestStaffPasswordResetRequest, context: object
    ) -> recovery_pb2.RequestStaffPasswordResetResponse:
        """Mails a person a link for a new password."""
        await self._recovery.request_staff_reset(request.email)
        return recovery_pb2.RequestStaffPasswordResetResponse()

    async def CompletePasswordReset(
        self, request: recovery_pb2.CompletePasswordResetRequest, context: object
    ) -> recovery_pb2.CompletePasswordResetResponse:
        """Sets a new password."""
        await self._recovery.complete_reset(request.token, request.password)
        return recovery_pb2.CompletePasswordResetResponse()

    async def ResendVerification(
        self, request: recovery_pb2.ResendVerificationRequest, context: object
    ) -> recovery_pb2.ResendVerificationResponse:
        """Mails a registration's link again."""
        await self._recovery.resend_verification(request.email)
        return recovery_pb2.ResendVerificationResponse()

    async def RequestMagicLink(
        self, request: recovery_pb2.RequestMagicLinkRequest, context: object
    ) -> recovery_pb2.RequestMagicLinkResponse:
        """Mails a reader a link to sign in with."""
        return recovery_pb2.RequestMagicLinkResponse(browser_secret=await self._magic_links.request(request.email))

    async def RedeemMagicLink(
        self, request: recovery_pb2.RedeemMagicLinkRequest, context: object
    ) -> session_pb2.Tokens:
        """Signs a reader in with a link."""
        return tokens(await self._magic_links.redeem(request.token, request.browser_secret))

    async def RequestEmailChange(
        self, request: recovery_pb2.RequestEmailChangeRequest, context: object
    ) -> recovery_pb2.RequestEmailChangeResponse:
        """Mails the caller's new address a link."""
        kept = await self._email_changes.request(request.email)
        return recovery_pb2.RequestEmailChangeResponse(browser_secret=kept)

    async def ConfirmEmailChange(
        self, request: recovery_pb2.ConfirmEmailChangeRequest, context: object
    ) -> recovery_pb2.ConfirmEmailChangeResponse:
        """Makes a new address count."""
        await self._email_changes.confirm(request.token, request.browser_secret, request.password)
        return recovery_pb2.ConfirmEmailChangeResponse()

    async def RevertEmailChange(
        self, request: recovery_pb2.RevertEmailChangeRequest, context: object
    ) -> recovery_pb2.RevertEmailChangeResponse:
        """Takes a change of address back."""
        await self._email_changes.revert(request.token)
        return recovery_pb2.RevertEmailChangeResponse()

    async def Unlock(self, request: recovery_pb2.UnlockRequest, context: object) -> recovery_pb2.UnlockResponse:
        """Lifts a lock."""
        await self._unlocks.unlock(request.token)
        return recovery_pb2.UnlockResponse()
