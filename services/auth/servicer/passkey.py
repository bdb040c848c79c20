"""Owns gatefold.auth.v1.PasskeyService."""

from collections.abc import Mapping

from gatefold.auth.v1 import passkey_pb2, passkey_pb2_grpc, session_pb2

from libs import caller, ids
from libs.postgres import PLATFORM
from services.auth.domain.factor import PASSKEY
from services.auth.servicer.factor import factor
from services.auth.servicer.session import tokens
from services.auth.usecases.passkey_proofs import PasskeyMethod
from services.auth.usecases.passkey_sign_in import PasskeySignIn
from services.auth.usecases.passkeys import Passkeys


class PasskeyServicer(passkey_pb2_grpc.PasskeyServiceServicer):
    """Adding keys, and what they prove."""

    def __init__(self, passkeys: Passkeys, methods: Mapping[str, PasskeyMethod], sign_in: PasskeySignIn) -> None:
        self._passkeys = passkeys
        self._methods = methods
        self._sign_in = sign_in

    async def BeginPasskey(
        self, request: passkey_pb2.BeginPasskeyRequest, context: object
    ) -> passkey_pb2.BeginPasskeyResponse:
        """Begins to add a key."""
        return passkey_pb2.BeginPasskeyResponse(options=await self._passkeys.begin(request.kind or PASSKEY))

    async def AddPasskey(
        self, request: passkey_pb2.AddPasskeyRequest, context: object
    ) -> passkey_pb2.AddPasskeyResponse:
        """Adds a key."""
        added, pair = await self._passkeys.add(request.name, request.credential)
        return passkey_pb2.AddPasskeyResponse(factor=factor(added), tokens=tokens(pair))

    async def BeginPasskeyProof(
        self, request: passkey_pb2.BeginPasskeyProofRequest, context: object
    ) -> passkey_pb2.BeginPasskeyProofResponse:
        """Asks a key to answer for a sign-in that waits."""
        options = await self._methods[request.method or PASSKEY].ask(request.pending_token)
        return passkey_pb2.BeginPasskeyProofResponse(options=options)

    async def BeginPasskeySignIn(
        self, request: passkey_pb2.BeginPasskeySignInRequest, context: object
    ) -> passkey_pb2.BeginPasskeySignInResponse:
        """Asks a reader's passkey to answer."""
        options = await self._sign_in.begin(caller.current().require_account(), request.email)
        return passkey_pb2.BeginPasskeySignInResponse(options=options)

    async def SignInWithPasskey(
        self, request: passkey_pb2.SignInWithPasskeyRequest, context: object
    ) -> session_pb2.Tokens:
        """Signs a reader in."""
        return tokens(await self._sign_in.reader(request.credential))

    async def BeginStaffPasskeySignIn(
        self, request: passkey_pb2.BeginStaffPasskeySignInRequest, context: object
    ) -> passkey_pb2.BeginStaffPasskeySignInResponse:
        """Asks a person's passkey to answer."""
        return passkey_pb2.BeginStaffPasskeySignInResponse(options=await self._sign_in.begin(PLATFORM, request.email))

    async def SignInStaffWithPasskey(
        self, request: passkey_pb2.SignInStaffWithPasskeyRequest, context: object
    ) -> session_pb2.Tokens:
        """Signs staff in."""
        account = ids.decode("acct", request.account_id, field="account_id") if request.account_id else None
        return tokens(await self._sign_in.person(request.credential, account))
