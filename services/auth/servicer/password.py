"""Owns gatefold.auth.v1.PasswordService."""

from gatefold.auth.v1 import password_pb2, password_pb2_grpc, session_pb2

from services.auth.servicer.session import tokens
from services.auth.usecases.own_password import OwnPassword


class PasswordServicer(password_pb2_grpc.PasswordServiceServicer):
    """Passwords, replaced by whose they are."""

    def __init__(self, passwords: OwnPassword) -> None:
        self._passwords = passwords

    async def ChangePassword(
        self, request: password_pb2.ChangePasswordRequest, context: object
    ) -> password_pb2.ChangePasswordResponse:
        """Replaces the caller's password."""
        await self._passwords.change(
            request.current_password, request.new_password, keep_sessions=request.keep_sessions
        )
        return password_pb2.ChangePasswordResponse()

    async def CompletePasswordChange(
        self, request: password_pb2.CompletePasswordChangeRequest, context: object
    ) -> session_pb2.Tokens:
        """Goes on with a sign-in."""
        return tokens(await self._passwords.complete(request.pending_token, request.new_password))
