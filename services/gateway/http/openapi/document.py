"""Owns the OpenAPI document as a whole: operations, credentials, problems."""

import re
from collections.abc import Mapping
from typing import Any

from gatefold.edge.v1 import policy_pb2

from libs.caller import CallerKind
from services.gateway.http.contracts import RATE_CLASSES, Contracts, Endpoint
from services.gateway.http.hardening import VERSION
from services.gateway.http.openapi.comments import Comments
from services.gateway.http.openapi.schemas import Schema, Schemas
from services.gateway.http.problems import PROBLEM_TYPE
from services.gateway.http.transcoding import FORM_TYPE, JSON_TYPE

_ABOUT = """\
JSON over HTTPS. Names are in snake_case; times are RFC 3339 in UTC; money is a whole number of the currency's minor \
unit; identifiers begin with what they name (`sub_…`). Every field of an answer is there: what is absent is `null`. \
Unknown fields in a request are refused.

**Errors** are problem details (RFC 9457) whose `reason` is stable; see [/problems](/problems). **Retries:** send an \
`Idempotency-Key`, and repeating a request gives the first answer again for 24 hours. **Pages:** give `next_cursor` \
as `cursor`. **Limits:** every answer says what is left in `RateLimit`; 429 says when to come back in `Retry-After`. \
Integers beyond 2^53 are written as strings.
"""
_CREDENTIALS: Mapping[CallerKind, tuple[str, str]] = {
    CallerKind.SECRET_KEY: ("secret_key", "`gfsk_…`, on your servers only."),
    CallerKind.PUBLISHABLE_KEY: ("publishable_key", "`gfpk_…`, in browsers on your own sites."),
    CallerKind.STAFF: ("staff_token", "Access token of a member of your team."),
    CallerKind.SUBSCRIBER: ("subscriber_token", "Access token of a reader."),
    CallerKind.PLATFORM_OPERATOR: ("operator_token", "Access token of whoever operates the platform."),
    CallerKind.OAUTH_CLIENT: ("oauth_token", "Access token of an OpenID Connect client."),
    CallerKind.SCIM: ("scim_key", "`gfsc_…`, in a staff directory that provisions the team."),
}
_PROBLEM = {
    "type": "object",
    "description": "What went wrong (RFC 9457).",
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "description": "Page about this kind of problem."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "A sentence for people."},
        "instance": {"type": "string", "description": "Names this very request when you ask for help."},
        "reason": {"type": "string", "description": "Stable name of what went wrong; what code decides by."},
        "errors": {
            "type": "array",
            "description": "Fields that break a rule, at most 20.",
            "items": {
                "type": "object",
                "properties": {
                    "field": {"type": "string", "description": "Path of the field, `items[0].price_id`."},
                    "rule": {"type": "string"},
                    "detail": {"type": "string"},
                },
                "required": ["field", "rule", "detail"],
            },
        },
        "violated-policies": {
            "type": "array",
            "description": "With 429: names of the limits that are used up, as in `RateLimit`.",
            "items": {"type": "string"},
        },
    },
    "required": ["type", "title", "status", "detail", "instance", "reason"],
}
_PROBLEMS = {
    "400": "It cannot be read.",
    "401": "The credential is missing or no good.",
    "403": "The credential does not allow this.",
    "404": "It does not exist, or not in your account.",
    "409": "Something else got there first, or its state does not allow this.",
    "413": "The body is too large.",
    "415": "The body's media type is not taken.",
    "422": "Fields break a rule; each is listed.",
    "429": "Asked too often.",
    "503": "A part of the platform is away; try again.",
}
_HEADERS = {
    "RateLimit": "Units left (`r`) and seconds until all are back (`t`), by limit.",
    "RateLimit-Policy": "Units (`q`) in a window of seconds (`w`), by limit.",
    "X-Request-Id": "The request's name, yours if you sent one.",
}


def document(contracts: Contracts) -> dict[str, Any]:
    """Returns the document for all endpoints, ordered by path."""
    comments = Comments(contracts.files)
    schemas = Schemas(comments, contracts.endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in sorted(contracts.endpoints, key=lambda one: (one.template, one.verb)):
        paths.setdefault(endpoint.template, {})[endpoint.verb.lower()] = _operation(endpoint, comments, schemas)
    services = {endpoint.method.containing_service for endpoint in contracts.endpoints}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Gatefold",
            "version": VERSION,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": _tag(service.name), "description": comments.of(service.full_name)}
            for service in sorted(services, key=lambda one: str(one.name))
        ],
        "paths": paths,
        "components": {
            "schemas": dict(sorted({**schemas.components, "Problem": _PROBLEM}.items())),
            "responses": {f"Problem{status}": _problem(status, text) for status, text in _PROBLEMS.items()},
            "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()},
            "securitySchemes": {
                name: {"type": "http", "scheme": "bearer", "description": text} for name, text in _CREDENTIALS.values()
            },
        },
    }


def _operation(endpoint: Endpoint, comments: Comments, schemas: Schemas) -> Schema:
    text = comments.of(endpoint.method.full_name)
    summary = re.split(r"(?<=[.:;]) ", text, maxsplit=1)[0].rstrip(".:;")
    operation: Schema = {
        "operationId": endpoint.method.name[0].lower() + endpoint.method.name[1:],
        "summary": summary,
        "description": f"{text}\n\n{_terms(endpoint)}",
        "tags": [_tag(endpoint.method.containing_service.name)],
        "security": _security(endpoint),
        "parameters": list(_parameters(endpoint, schemas)),
        "responses": {str(endpoint.success_status): _success(endpoint, schemas), **_refusals(endpoint)},
    }
    if body := _body(endpoint, schemas):
        operation["requestBody"] = body
    return operation


def _terms(endpoint: Endpoint) -> str:
    message = endpoint.policy.message
    credentials = [f"`{name}`" for kind, (name, _) in _CREDENTIALS.items() if kind in endpoint.policy.callers]
    terms = [f"Needs {' or '.join(credentials)}" if credentials else "Needs no credential"]
    terms.append(f"limit class `{RATE_CLASSES[message.rate]}`")
    if endpoint.policy.scope:
        terms.append(f"scope `{endpoint.policy.scope}`")
    if message.HasField("assurance"):
        wanted = [f"`{message.assurance.acr}`"] if message.assurance.acr else []
        if message.assurance.max_age_seconds:
            wanted.append(f"proven within {message.assurance.max_age_seconds} seconds")
        terms.append(f"assurance {' '.join(wanted)}")
    return ", ".join(terms) + "."


def _security(endpoint: Endpoint) -> list[Schema]:
    kinds = endpoint.policy.callers
    offered: list[Schema] = [{name: []} for kind, (name, _) in _CREDENTIALS.items() if kind in kinds]
    return [*offered, {}] if CallerKind.ANONYMOUS in kinds else offered


def _parameters(endpoint: Endpoint, schemas: Schemas) -> Any:
    for name in endpoint.variables:
        field = endpoint.field(name)
        yield _parameter(name, "path", schemas.sent_field(field), required=True)
    for field in endpoint.query_fields:
        yield _parameter(endpoint.query_name(field), "query", schemas.sent_field(field), required=field.required)
    for field in endpoint.header_fields:
        yield _parameter(field.rule.header, "header", schemas.sent_field(field), required=field.required)
    treatment = endpoint.policy.message.idempotency
    if treatment in (policy_pb2.IDEMPOTENCY_OPTIONAL, policy_pb2.IDEMPOTENCY_REQUIRED):
        schema: Schema = {
            "type": "string",
            "minLength": 1,
            "maxLength": 255,
            "description": "A text of your choice, one for each intention; repeating it repeats nothing.",
        }
        required = treatment == policy_pb2.IDEMPOTENCY_REQUIRED
        yield _parameter("Idempotency-Key", "header", schema, required=required)


def _parameter(name: str, place: str, schema: Schema, *, required: bool) -> Schema:
    text = schema.pop("description", "")
    parameter: Schema = {"name": name, "in": place, "required": required, "schema": schema}
    return {**parameter, "description": text} if text else parameter


def _body(endpoint: Endpoint, schemas: Schemas) -> Schema | None:
    if endpoint.raw_body:
        field = endpoint.field(endpoint.body)
        return {"required": field.required, "content": {"*/*": {"schema": {}}}}
    if not endpoint.body or (endpoint.body == "*" and not endpoint.body_fields):
        return None
    required = endpoint.body != "*" or any(field.required for field in endpoint.body_fields)
    media_type = FORM_TYPE if endpoint.wire == policy_pb2.WIRE_OAUTH else JSON_TYPE
    return {"required": required, "content": {media_type: {"schema": schemas.body(endpoint)}}}


def _success(endpoint: Endpoint, schemas: Schemas) -> Schema:
    if endpoint.redirects:
        location = {"Location": {"description": "Where the browser goes on.", "schema": {"type": "string"}}}
        return {"description": "Go on elsewhere.", "headers": location}
    content: Schema = (
        {"*/*": {}} if endpoint.raw_response else {JSON_TYPE: {"schema": schemas.answer(endpoint.response)}}
    )
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
    return {"description": "Done." if endpoint.verb != "GET" else "Found.", "headers": headers, "content": content}


def _refusals(endpoint: Endpoint) -> Schema:
    statuses = {"400", "429", "503"}
    if not endpoint.anonymous_only:
        statuses |= {"401", "403"}
    if endpoint.variables:
        statuses.add("404")
    if not endpoint.policy.safe:
        statuses |= {"409", "413", "415"}
    if endpoint.request.fields:
        statuses.add("422")
    return {status: {"$ref": f"#/components/responses/Problem{status}"} for status in sorted(statuses)}


def _problem(status: str, text: str) -> Schema:
    headers: Schema = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
    if status in ("429", "503"):
        headers["Retry-After"] = {"description": "Seconds to wait.", "schema": {"type": "integer"}}
    if status == "401":
        headers["WWW-Authenticate"] = {"description": "What is missing (RFC 6750).", "schema": {"type": "string"}}
    content = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": text, "headers": headers, "content": content}


def _tag(service: str) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", service.removesuffix("Service")).split()
    return " ".join([words[0], *(word.lower() for word in words[1:])]).replace("Api ", "API ")
