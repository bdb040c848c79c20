"""Owns gatefold.auth.v1.ApiKeyService."""

from gatefold.auth.v1 import api_key_pb2, api_key_pb2_grpc

from libs import errors, ids
from services.auth.domain import api_key as rules
from services.auth.domain.api_key import ApiKey
from services.auth.servicer import page
from services.auth.usecases.api_keys import ApiKeys

_KINDS = {
    api_key_pb2.API_KEY_KIND_SECRET: rules.SECRET,
    api_key_pb2.API_KEY_KIND_PUBLISHABLE: rules.PUBLISHABLE,
    api_key_pb2.API_KEY_KIND_SCIM: rules.SCIM,
}
_NUMBERS = {kind: number for number, kind in _KINDS.items()}


class ApiKeyServicer(api_key_pb2_grpc.ApiKeyServiceServicer):
    """API keys."""

    def __init__(self, api_keys: ApiKeys) -> None:
        self._api_keys = api_keys

    async def CreateApiKey(
        self, request: api_key_pb2.CreateApiKeyRequest, context: object
    ) -> api_key_pb2.CreateApiKeyResponse:
        """Makes a key."""
        kind = _KINDS.get(request.kind)
        if kind is None:
            raise errors.invalid("kind_invalid", "A key is secret, publishable, or a directory's.", field="kind")
        key, secret = await self._api_keys.create(request, kind)
        return api_key_pb2.CreateApiKeyResponse(api_key=_key(key), secret=secret)

    async def RotateApiKey(
        self, request: api_key_pb2.RotateApiKeyRequest, context: object
    ) -> api_key_pb2.CreateApiKeyResponse:
        """Makes a key's successor."""
        key, secret = await self._api_keys.rotate(request)
        return api_key_pb2.CreateApiKeyResponse(api_key=_key(key), secret=secret)

    async def ListApiKeys(
        self, request: api_key_pb2.ListApiKeysRequest, context: object
    ) -> api_key_pb2.ListApiKeysResponse:
        """Lists keys."""
        limit = page.size(request.limit)
        shown, last = page.cut(await self._api_keys.list_keys(page.before("key", request.cursor), limit + 1), limit)
        return api_key_pb2.ListApiKeysResponse(
            data=[_key(one) for one in shown], next_cursor=ids.encode("key", last.id) if last else ""
        )

    async def RevokeApiKey(self, request: api_key_pb2.RevokeApiKeyRequest, context: object) -> api_key_pb2.ApiKey:
        """Ends a key."""
        return _key(await self._api_keys.revoke(ids.decode("key", request.id)))

    async def ReportLeakedApiKey(
        self, request: api_key_pb2.ReportLeakedApiKeyRequest, context: object
    ) -> api_key_pb2.ReportLeakedApiKeyResponse:
        """Takes the gateway's word that a key was seen."""
        return api_key_pb2.ReportLeakedApiKeyResponse(
            revoked=await self._api_keys.report_leak(request.hash, request.place)
        )

    async def ResolveApiKey(
        self, request: api_key_pb2.ResolveApiKeyRequest, context: object
    ) -> api_key_pb2.ResolveApiKeyResponse:
        """Tells whose key a hash is of."""
        account, key = await self._api_keys.resolve(request.hash)
        return api_key_pb2.ResolveApiKeyResponse(api_key=_key(key), account_id=ids.encode("acct", account))


def _key(key: ApiKey) -> api_key_pb2.ApiKey:
    response = api_key_pb2.ApiKey(
        id=ids.encode("key", key.id),
        kind=_NUMBERS[key.kind],
        live=key.live,
        name=key.name,
        prefix=key.prefix,
        last_four=key.last_four,
        scopes=key.scopes,
        networks=key.networks,
        replaced_by=ids.encode("key", key.replaced_by) if key.replaced_by else "",
        leaked_in=key.leaked_in,
    )
    response.created_at.FromDatetime(key.created_at)
    for stamp, at in (
        (response.revoked_at, key.revoked_at),
        (response.expires_at, key.expires_at),
        (response.last_used_at, key.last_used_at),
        (response.leaked_at, key.leaked_at),
    ):
        if at is not None:
            stamp.FromDatetime(at)
    return response
