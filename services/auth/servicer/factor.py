"""Owns gatefold.auth.v1.FactorService."""

from gatefold.auth.v1 import factor_pb2, factor_pb2_grpc, session_pb2

from libs import ids
from services.auth.domain import factor as rules
from services.auth.domain.factor import Factor
from services.auth.servicer.session import tokens
from services.auth.usecases.email_codes import EmailCodes
from services.auth.usecases.factors import Factors
from services.auth.usecases.recovery_codes import RecoveryCodes
from services.auth.usecases.step_up import StepUp

_KINDS = {
    rules.TOTP: factor_pb2.FACTOR_KIND_TOTP,
    rules.EMAIL_CODE: factor_pb2.FACTOR_KIND_EMAIL_CODE,
    rules.PASSKEY: factor_pb2.FACTOR_KIND_PASSKEY,
    rules.SECURITY_KEY: factor_pb2.FACTOR_KIND_SECURITY_KEY,
}


class FactorServicer(factor_pb2_grpc.FactorServiceServicer):
    """The caller's own second factors."""

    def __init__(
        self, factors: Factors, recovery_codes: RecoveryCodes, email_codes: EmailCodes, step_up: StepUp
    ) -> None:
        self._factors = factors
        self._recovery_codes = recovery_codes
        self._email_codes = email_codes
        self._step_up = step_up

    async def ListFactors(
        self, request: factor_pb2.ListFactorsRequest, context: object
    ) -> factor_pb2.ListFactorsResponse:
        """Lists factors."""
        found, left = await self._factors.list_factors()
        return factor_pb2.ListFactorsResponse(data=[factor(one) for one in found], recovery_codes_left=left)

    async def BeginTotp(self, request: factor_pb2.BeginTotpRequest, context: object) -> factor_pb2.BeginTotpResponse:
        """Begins to add an app."""
        begun = await self._factors.begin_totp(request.name)
        return factor_pb2.BeginTotpResponse(id=ids.encode("fac", begun.factor.id), secret=begun.secret, uri=begun.uri)

    async def ConfirmTotp(
        self, request: factor_pb2.ConfirmTotpRequest, context: object
    ) -> factor_pb2.ConfirmTotpResponse:
        """Confirms an app."""
        found, pair = await self._factors.confirm_totp(ids.decode("fac", request.id), request.code)
        return factor_pb2.ConfirmTotpResponse(factor=factor(found), tokens=tokens(pair))

    async def EnableEmailCodes(self, request: factor_pb2.EnableEmailCodesRequest, context: object) -> factor_pb2.Factor:
        """Switches codes by mail on."""
        return factor(await self._factors.enable_email_codes())

    async def RenameFactor(self, request: factor_pb2.RenameFactorRequest, context: object) -> factor_pb2.Factor:
        """Renames a factor."""
        return factor(await self._factors.rename(ids.decode("fac", request.id), request.name))

    async def RemoveFactor(
        self, request: factor_pb2.RemoveFactorRequest, context: object
    ) -> factor_pb2.RemoveFactorResponse:
        """Removes a factor."""
        await self._factors.remove(ids.decode("fac", request.id))
        return factor_pb2.RemoveFactorResponse()

    async def RegenerateRecoveryCodes(
        self, request: factor_pb2.RegenerateRecoveryCodesRequest, context: object
    ) -> factor_pb2.RegenerateRecoveryCodesResponse:
        """Makes recovery codes."""
        return factor_pb2.RegenerateRecoveryCodesResponse(codes=await self._recovery_codes.regenerate())

    async def StepUp(self, request: factor_pb2.StepUpRequest, context: object) -> session_pb2.Tokens:
        """Proves the session anew."""
        return tokens(await self._step_up.prove(request.password, request.method, request.code))

    async def SendSignInCode(
        self, request: factor_pb2.SendSignInCodeRequest, context: object
    ) -> factor_pb2.SendSignInCodeResponse:
        """Mails a code."""
        await self._email_codes.send(request.pending_token)
        return factor_pb2.SendSignInCodeResponse()


def factor(one: Factor) -> factor_pb2.Factor:
    """Returns a factor as its owner sees it."""
    response = factor_pb2.Factor(
        id=ids.encode("fac", one.id), kind=_KINDS[one.kind], name=one.name, backed_up=one.backed_up
    )
    response.created_at.FromDatetime(one.created_at)
    if one.last_used_at is not None:
        response.last_used_at.FromDatetime(one.last_used_at)
    if one.clone_suspected_at is not None:
        response.clone_suspected_at.FromDatetime(one.clone_suspected_at)
    return response
