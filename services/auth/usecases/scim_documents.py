"""Owns SCIM documents (RFC 7643, 7644): members and roles as users and groups, and reading what a directory sent."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

import orjson
from pydantic import ValidationError
from scim2_models import (
    AuthenticationScheme,
    Bulk,
    ChangePassword,
    Context,
    Email,
    EnterpriseUser,
    Error,
    ETag,
    Filter,
    Group,
    GroupMember,
    GroupMembership,
    ListResponse,
    Meta,
    Patch,
    PatchOp,
    Resource,
    ResourceType,
    ResponseParameters,
    Role,
    Schema,
    SCIMException,
    ScimFilter,
    ScimPolicy,
    SearchRequest,
    ServiceProviderConfig,
    Sort,
    User,
)

from libs import errors
from services.auth.domain.directory import Document, Query, Standing

DirectoryUser = User[EnterpriseUser]
MOST_RESULTS = 100
MOST_OPERATIONS = 100

_POLICY = ScimPolicy(
    # As Okta and Entra ID write: attributes of their own, `remove` with a value, paths that match nothing yet.
    unknown=ScimPolicy.Unknown.ignore,
    remove_value_as_filter=ScimPolicy.RemoveValue.apply,
    unmatched_path_filter=ScimPolicy.UnmatchedPathFilter.create,
)
# Kept elsewhere, or not at all: a password that a directory sends goes nowhere.
_NOT_SAID = frozenset({"schemas", "id", "meta", "active", "roles", "groups", "password"})

_HELD = "urn:gatefold:held"
"""Marks the role that was there before a PATCH, to tell it from one that the PATCH names."""

USERS: Any = DirectoryUser
GROUPS: Any = Group

AnyResource = TypeVar("AnyResource", bound=Resource[Any])


@contextmanager
def reading() -> Iterator[None]:
    """Within it, what a client sent and is no SCIM raises `malformed("scim_invalid")`, with its `scimType`."""
    try:
        yield
    except SCIMException as error:
        raise _invalid(error.to_error()) from error
    except ValidationError as error:
        raise _invalid(Error.from_validation_error(dict(error.errors()[0]))) from error


def user_of(standing: Standing, base: str) -> Any:
    """Returns a member as a user."""
    said = {"schemas": [str(DirectoryUser.__schema__)], "userName": standing.email, **standing.said}
    user: Any = DirectoryUser.model_validate(said, scim_ctx=Context.DEFAULT, scim_policy=_POLICY)
    user.id = standing.id
    user.active = standing.active
    user.roles = [Role(value=standing.role, primary=True)]
    user.groups = [GroupMembership.model_validate({"value": standing.role, "display": standing.role})]
    if not user.emails:
        user.emails = [Email.model_validate({"value": standing.email, "type": "work", "primary": True})]
    user.meta = _meta("User", f"{base}/Users/{standing.id}", standing.created_at, standing.updated_at)
    return _versioned(user)


def group_of(role: str, members: Sequence[Standing], base: str) -> Any:
    """Returns a role as a group."""
    group: Any = Group(id=role, display_name=role)
    held = [one for one in members if one.role == role]
    if held:
        group.members = [GroupMember.model_validate({"value": one.id, "display": one.email}) for one in held]
    group.meta = _meta("Group", f"{base}/Groups/{role}")
    return _versioned(group)


def document(resource: Any, query: Query | None = None) -> Document:
    """Returns a resource as an answer, with the attributes asked for."""
    with reading():
        chosen = _parameters(type(resource), query) if query else None
        body = resource.model_dump_json(scim_ctx=Context.RESOURCE_QUERY_RESPONSE, response_parameters=chosen)
    return Document(body.encode(), resource.meta.version, resource.meta.location)


def listed(kind: type[AnyResource], resources: Sequence[AnyResource], query: Query) -> Document:
    """Returns those resources that a query asks for, a page at the most."""
    asked = {
        "filter": query.filter or None,
        "sortBy": query.sort_by or None,
        "sortOrder": query.sort_order or None,
        "startIndex": query.start_index,
        "count": MOST_RESULTS if query.count is None else min(max(query.count, 0), MOST_RESULTS),
        "attributes": query.attributes or None,
        "excludedAttributes": query.excluded_attributes or None,
    }
    with reading():
        given = {name: value for name, value in asked.items() if value is not None}
        search: Any = SearchRequest[kind].model_validate(given, scim_ctx=Context.DEFAULT)  # type: ignore[valid-type]
        wanted = ScimFilter[kind](query.filter).match if query.filter else None  # type: ignore[valid-type]
        found = [one for one in resources if wanted is None or wanted(one)]
        if query.sort_by:
            found = search.sort(found)
        start = max(query.start_index, 1)
        page = found[start - 1 : start - 1 + search.count]
        answer: Any = ListResponse[kind](  # type: ignore[valid-type]
            total_results=len(found), start_index=start, items_per_page=len(page), resources=page
        )
        return _answer(answer, search)


def said(user: Any) -> bytes:
    """Returns what is to be kept of what a directory said, as JSON."""
    dumped: dict[str, Any] = user.model_dump(scim_ctx=Context.DEFAULT)
    return orjson.dumps({name: value for name, value in dumped.items() if name not in _NOT_SAID})


def read_user(body: bytes, *, new: bool) -> Any:
    """Returns a user that a client sent."""
    context = Context.RESOURCE_CREATION_REQUEST if new else Context.DEFAULT
    with reading():
        return DirectoryUser.model_validate(_object(body), scim_ctx=context, scim_policy=_POLICY)


def read_group(body: bytes) -> Any:
    """Returns a group that a client sent."""
    with reading():
        return Group.model_validate(_object(body), scim_ctx=Context.DEFAULT, scim_policy=_POLICY)


def patched(resource: AnyResource, body: bytes) -> AnyResource:
    """Returns a copy of a resource with a PATCH applied (RFC 7644 section 3.5.2)."""
    sent = _object(body)
    operations = sent.get("Operations")
    if isinstance(operations, list) and len(operations) > MOST_OPERATIONS:
        raise errors.too_large("scim_too_many", f"A PATCH has {MOST_OPERATIONS} operations at most.")
    changed = resource.model_copy(deep=True)
    with reading():
        kind: Any = type(resource)
        patch: Any = PatchOp[kind].model_validate(sent, scim_ctx=Context.RESOURCE_PATCH_REQUEST, scim_policy=_POLICY)
        patch.patch(changed, scim_policy=_POLICY)
    return changed


def patched_user(user: Any, body: bytes) -> Any:
    """Returns a copy of a user with a PATCH applied; a role that it names takes the place of the one that was there.

    Raises `malformed("scim_invalid")` also for several, none of them primary: a member has one.
    """
    marked = user.model_copy(deep=True)
    present = {role.value for role in marked.roles or ()}
    for role in marked.roles or ():
        role.type = _HELD
    changed = patched(marked, body)
    named = [role for role in changed.roles or () if role.type != _HELD or role.value not in present]
    if named:
        changed.roles = named
    if len({role.value for role in named}) > 1 and not any(role.primary for role in named):
        raise errors.malformed(
            "scim_invalid", "A member has one role: name one, or the primary.", metadata={"scim_type": "invalidValue"}
        )
    return changed


def wanted_role(user: Any) -> str | None:
    """Returns the role that a user names: the primary one, or the first."""
    named = [role for role in user.roles or () if role.value]
    named.sort(key=lambda role: not role.primary)
    return str(named[0].value).strip().lower() if named else None


def config(base: str) -> Document:
    """Returns what is served."""
    served: Any = ServiceProviderConfig(
        patch=Patch(supported=True),
        bulk=Bulk(supported=False, max_operations=0, max_payload_size=0),
        filter=Filter(supported=True, max_results=MOST_RESULTS),
        change_password=ChangePassword(supported=False),
        sort=Sort(supported=True),
        etag=ETag(supported=True),
        authentication_schemes=[
            AuthenticationScheme.model_validate(
                {
                    "type": "oauthbearertoken",
                    "name": "Bearer",
                    "description": "A directory's key, `gfsc_…`, as the Authorization header's bearer token.",
                    "primary": True,
                }
            )
        ],
    )
    served.meta = Meta(resource_type="ServiceProviderConfig", location=f"{base}/ServiceProviderConfig")
    return _answer(served)


def resource_types(base: str) -> Document:
    """Returns the kinds of resources."""
    kinds: list[Any] = [ResourceType.from_resource(kind) for kind in (DirectoryUser, Group)]
    for kind in kinds:
        kind.meta = Meta(resource_type="ResourceType", location=f"{base}/ResourceTypes/{kind.id}")
    answer: Any = ListResponse[ResourceType](
        total_results=len(kinds), start_index=1, items_per_page=len(kinds), resources=kinds
    )
    return _answer(answer)


def schemas(base: str) -> Document:
    """Returns the schemas of the resources."""
    described: list[Any] = [model.to_schema() for model in (User, EnterpriseUser, Group)]
    for schema in described:
        schema.meta = Meta(resource_type="Schema", location=f"{base}/Schemas/{schema.id}")
    answer: Any = ListResponse[Schema](
        total_results=len(described), start_index=1, items_per_page=len(described), resources=described
    )
    return _answer(answer)


def _object(body: bytes) -> dict[str, Any]:
    try:
        sent = orjson.loads(body)
    except orjson.JSONDecodeError:
        sent = None
    if not isinstance(sent, dict):
        raise errors.malformed(
            "scim_invalid", "The body must be one JSON object.", metadata={"scim_type": "invalidSyntax"}
        )
    return sent


def _parameters(kind: Any, query: Query) -> Any:
    asked = {"attributes": query.attributes or None, "excludedAttributes": query.excluded_attributes or None}
    given = {name: value for name, value in asked.items() if value is not None}
    return ResponseParameters[kind].model_validate(given) if given else None


def _answer(message: Any, chosen: Any = None) -> Document:
    body = message.model_dump_json(scim_ctx=Context.RESOURCE_QUERY_RESPONSE, response_parameters=chosen)
    return Document(body.encode())


def _meta(kind: str, location: str, created: datetime | None = None, updated: datetime | None = None) -> Any:
    return Meta(resource_type=kind, location=location, created=created, last_modified=updated)


def _versioned(resource: Any) -> Any:
    """Gives a resource the entity tag of all that it says: what changes it changes the tag, whoever changed it."""
    dumped = resource.model_dump_json(scim_ctx=Context.RESOURCE_QUERY_RESPONSE)
    resource.meta.version = f'W/"{hashlib.sha256(dumped.encode()).hexdigest()[:32]}"'
    return resource


def _invalid(error: Any) -> errors.GatefoldError:
    metadata = {"scim_type": str(error.scim_type)} if error.scim_type else {}
    return errors.malformed("scim_invalid", str(error.detail)[:300], metadata=metadata)
