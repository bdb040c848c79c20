"""Owns gatefold.auth.v1.CredentialService."""

from gatefold.auth.v1 import credential_pb2, credential_pb2_grpc

from services.auth.domain.password import PasswordCount
from services.auth.usecases.imported_passwords import ImportedPasswords


class CredentialServicer(credential_pb2_grpc.CredentialServiceServicer):
    """Readers' passwords, imported and counted."""

    def __init__(self, imported: ImportedPasswords) -> None:
        self._imported = imported

    async def ImportPasswords(
        self, request: credential_pb2.ImportPasswordsRequest, context: object
    ) -> credential_pb2.ImportPasswordsResponse:
        """Takes hashes of another system."""
        taken, refused = await self._imported.take(request)
        return credential_pb2.ImportPasswordsResponse(
            taken=taken,
            refused=[credential_pb2.RefusedPassword(position=place, reason=reason) for place, reason in refused],
        )

    async def CountPasswords(
        self, request: credential_pb2.CountPasswordsRequest, context: object
    ) -> credential_pb2.PasswordCounts:
        """Counts readers' passwords."""
        return self._counts(await self._imported.count(), peppers=False)

    async def CountPeoplesPasswords(
        self, request: credential_pb2.CountPeoplesPasswordsRequest, context: object
    ) -> credential_pb2.PasswordCounts:
        """Counts the passwords of staff and operators."""
        return self._counts(await self._imported.count_peoples(), peppers=True)

    def _counts(self, found: list[PasswordCount], *, peppers: bool) -> credential_pb2.PasswordCounts:
        return credential_pb2.PasswordCounts(
            data=[
                credential_pb2.PasswordCount(
                    scheme=one.scheme,
                    params=one.params,
                    pepper_id=one.pepper_id if peppers else "",
                    count=one.count,
                    imported=one.imported,
                    stale=self._imported.is_stale(one),
                )
                for one in found
            ]
        )
