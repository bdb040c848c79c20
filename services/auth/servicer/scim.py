"""Owns gatefold.auth.v1.ScimService."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from gatefold.auth.v1 import scim_pb2, scim_pb2_grpc
from gatefold.edge.v1 import answer_headers_pb2
from google.api import httpbody_pb2

from services.auth.domain.directory import Document, Query

if TYPE_CHECKING:
    from services.auth.usecases.directory import Directory

_MEDIA_TYPE = "application/scim+json"


class ScimServicer(scim_pb2_grpc.ScimServiceServicer):
    """A team, as its directory keeps it."""

    def __init__(self, open_directory: "Callable[[], Directory]") -> None:
        self._open = open_directory

    @cached_property
    def _directory(self) -> "Directory":
        return self._open()

    async def GetScimConfig(self, request: scim_pb2.GetScimConfigRequest, context: object) -> httpbody_pb2.HttpBody:
        """Says what is served."""
        return _body(self._directory.config())

    async def ListScimResourceTypes(
        self, request: scim_pb2.ListScimResourceTypesRequest, context: object
    ) -> httpbody_pb2.HttpBody:
        """Lists the kinds of resources."""
        return _body(self._directory.resource_types())

    async def ListScimSchemas(self, request: scim_pb2.ListScimSchemasRequest, context: object) -> httpbody_pb2.HttpBody:
        """Lists the schemas."""
        return _body(self._directory.schemas())

    async def ListScimUsers(self, request: scim_pb2.ListScimUsersRequest, context: object) -> httpbody_pb2.HttpBody:
        """Lists members."""
        return _body(await self._directory.users(_query(request)))

    async def CreateScimUser(self, request: scim_pb2.CreateScimUserRequest, context: object) -> httpbody_pb2.HttpBody:
        """Invites a member."""
        return _body(await self._directory.create(request.document.data), made=True)

    async def GetScimUser(self, request: scim_pb2.GetScimUserRequest, context: object) -> httpbody_pb2.HttpBody:
        """Reads a member."""
        return _body(await self._directory.user(request.id, _chosen(request)))

    async def ReplaceScimUser(self, request: scim_pb2.ReplaceScimUserRequest, context: object) -> httpbody_pb2.HttpBody:
        """Replaces what is said of a member."""
        return _body(await self._directory.replace(request.id, request.document.data, request.if_match))

    async def PatchScimUser(self, request: scim_pb2.PatchScimUserRequest, context: object) -> httpbody_pb2.HttpBody:
        """Changes what is said of a member."""
        return _body(await self._directory.patch(request.id, request.document.data, request.if_match))

    async def DeleteScimUser(self, request: scim_pb2.DeleteScimUserRequest, context: object) -> httpbody_pb2.HttpBody:
        """Removes a member."""
        await self._directory.delete(request.id, request.if_match)
        return httpbody_pb2.HttpBody()

    async def ListScimGroups(self, request: scim_pb2.ListScimGroupsRequest, context: object) -> httpbody_pb2.HttpBody:
        """Lists roles."""
        return _body(await self._directory.groups(_query(request)))

    async def GetScimGroup(self, request: scim_pb2.GetScimGroupRequest, context: object) -> httpbody_pb2.HttpBody:
        """Reads a role."""
        return _body(await self._directory.group(request.id, _chosen(request)))

    async def ReplaceScimGroup(
        self, request: scim_pb2.ReplaceScimGroupRequest, context: object
    ) -> httpbody_pb2.HttpBody:
        """Gives a role to those listed."""
        return _body(await self._directory.replace_group(request.id, request.document.data, request.if_match))

    async def PatchScimGroup(self, request: scim_pb2.PatchScimGroupRequest, context: object) -> httpbody_pb2.HttpBody:
        """Gives a role to some and takes it from others."""
        return _body(await self._directory.patch_group(request.id, request.document.data, request.if_match))


def _query(request: scim_pb2.ListScimUsersRequest | scim_pb2.ListScimGroupsRequest) -> Query:
    return Query(
        request.filter,
        request.sort_by,
        request.sort_order,
        request.start_index,
        request.count if request.HasField("count") else None,
        request.attributes,
        request.excluded_attributes,
    )


def _chosen(request: scim_pb2.GetScimUserRequest | scim_pb2.GetScimGroupRequest) -> Query:
    return Query("", "", "", 1, None, request.attributes, request.excluded_attributes)


def _body(document: Document, *, made: bool = False) -> httpbody_pb2.HttpBody:
    body = httpbody_pb2.HttpBody(content_type=_MEDIA_TYPE, data=document.body)
    if document.etag:
        headers = answer_headers_pb2.AnswerHeaders(etag=document.etag, location=document.location if made else "")
        body.extensions.add().Pack(headers)
    return body
