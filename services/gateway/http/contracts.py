"""Owns what the gateway reads from the compiled descriptors: every public endpoint, and why it may not be served."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gatefold.edge.v1 import policy_pb2
from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from libs import policies
from libs.caller import CallerKind
from libs.codecs.shapes import RAW_BODY, Field, Kind, fields_of
from libs.policies import Policy

ASSURANCE_LEVELS = ("aal1", "aal2", "aal3")
"""NIST SP 800-63B, weakest first."""

_PEOPLE = frozenset({CallerKind.STAFF, CallerKind.SUBSCRIBER, CallerKind.PLATFORM_OPERATOR})
_TENANT_KINDS = frozenset(
    {
        CallerKind.SECRET_KEY,
        CallerKind.PUBLISHABLE_KEY,
        CallerKind.STAFF,
        CallerKind.SUBSCRIBER,
        CallerKind.OAUTH_CLIENT,
        CallerKind.SCIM,
    }
)
_VERBS = ("get", "post", "put", "patch", "delete")
_REDIRECT = "gatefold.edge.v1.Redirect"
_SEGMENT = re.compile(r"[A-Za-z0-9._~-]+|\{[a-z][a-z0-9_]*\}")
_SCALARS = frozenset(Kind) - {Kind.MESSAGE, Kind.RAW}


class ContractError(Exception):
    """The contracts cannot be served as they stand; names every problem."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Endpoint:
    """One public RPC and its HTTP form."""

    method: MethodDescriptor
    policy: Policy
    verb: str
    """HTTP method in capitals."""
    template: str
    """Path with `{field}` segments."""
    body: str
    """`*`, the name of the field the body fills, or empty."""

    @cached_property
    def rpc(self) -> str:
        """The method as gRPC spells it."""
        return self.policy.method

    @cached_property
    def peer(self) -> str:
        """The service behind it: `billing` of gatefold.billing.v1."""
        return self.method.containing_service.file.package.split(".")[1]

    @cached_property
    def variables(self) -> tuple[str, ...]:
        """Names of the fields in the path, in order."""
        return tuple(part[1:-1] for part in self.template.split("/") if part.startswith("{"))

    @cached_property
    def rate(self) -> str:
        """Name of its rate class."""
        return RATE_CLASSES[self.policy.message.rate]

    @cached_property
    def cost(self) -> int:
        """Units that a request takes of its quotas."""
        return self.policy.message.cost or 1

    @cached_property
    def assured(self) -> bool:
        """Whether it asks for a strong or fresh authentication."""
        return self.policy.message.HasField("assurance")

    @cached_property
    def criticality(self) -> int:
        """How long it is served when there is too much to do; 0 where nothing is said."""
        return self.policy.message.criticality

    @property
    def request(self) -> Descriptor:
        """Type of the request message."""
        return self.method.input_type

    @property
    def response(self) -> Descriptor:
        """Type of the response message."""
        return self.method.output_type

    @cached_property
    def wire(self) -> int:
        """How requests and answers are written."""
        return self.policy.message.wire

    @property
    def raw_body(self) -> bool:
        """Whether the body is taken byte for byte."""
        return self.body not in ("", "*") and self.field(self.body).shape.kind is Kind.RAW

    @cached_property
    def raw_response(self) -> bool:
        """Whether the answer is bytes and not JSON."""
        return self.response.full_name == RAW_BODY

    @cached_property
    def redirects(self) -> bool:
        """Whether the answer sends the browser elsewhere."""
        return self.response.full_name == _REDIRECT

    def field(self, name: str) -> Field:
        """Returns a field of the request message."""
        return next(field for field in fields_of(self.request) if field.name == name)

    @property
    def body_fields(self) -> tuple[Field, ...]:
        """Fields that a JSON body of `*` may have."""
        taken = {*self.variables, *(field.name for field in self.header_fields)}
        return tuple(field for field in fields_of(self.request) if field.name not in taken) if self.body == "*" else ()

    @property
    def header_fields(self) -> tuple[Field, ...]:
        """Fields that are filled from request headers."""
        return tuple(field for field in fields_of(self.request) if field.rule.header)

    @property
    def query_fields(self) -> tuple[Field, ...]:
        """Fields that are filled from the query."""
        if self.body == "*":
            return ()
        taken = {*self.variables, self.body, *(field.name for field in self.header_fields)}
        return tuple(field for field in fields_of(self.request) if field.name not in taken)

    def query_name(self, field: Field) -> str:
        """Returns how a parameter of the query is written: as the field, in camelCase where SCIM is spoken."""
        if self.wire != policy_pb2.WIRE_SCIM:
            return field.name
        first, *others = field.name.split("_")
        return first + "".join(other.capitalize() for other in others)

    @cached_property
    def success_status(self) -> int:
        """HTTP status of success."""
        return 303 if self.redirects else self.policy.message.success_status or 200

    @cached_property
    def reads_authorization(self) -> bool:
        """Whether the Authorization header is a field of the request, and no credential of this API."""
        return "Authorization" in {field.rule.header for field in self.header_fields}

    @cached_property
    def for_any_origin(self) -> bool:
        """Whether pages of any site may call it and read the answer.

        True of what is the same for everybody, and of what OAuth clients ask for with a secret, code or token that they
        bring themselves: no browser adds anything to it (docs/adr/0017-openid-provider.md).
        """
        anonymous = self.anonymous_only and (self.policy.safe or self.wire == policy_pb2.WIRE_OAUTH)
        return anonymous or self.policy.callers == {CallerKind.OAUTH_CLIENT}

    @cached_property
    def anonymous_only(self) -> bool:
        """Whether nobody but anonymous clients (and services) may call."""
        return self.policy.callers <= {CallerKind.ANONYMOUS, CallerKind.SERVICE}


@dataclass(frozen=True)
class Contracts:
    """All public endpoints, and the files they come from."""

    endpoints: tuple[Endpoint, ...]
    files: descriptor_pb2.FileDescriptorSet
    pool: DescriptorPool

    @classmethod
    def load(cls, path: Path) -> "Contracts":
        """Reads a descriptor set; raises ContractError naming every RPC that cannot be served as it is declared."""
        try:
            files = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
            declared = policies.load(path)
        except policies.PolicyError as error:
            raise ContractError([str(error)]) from error
        pool = DescriptorPool()
        for file in files.file:
            pool.AddSerializedFile(file.SerializeToString())
        problems: list[str] = []
        endpoints: list[Endpoint] = []
        for method, rule in _public_methods(files, pool):
            endpoint, found = _endpoint(method, rule, declared)
            problems += found
            if endpoint is not None and not found:
                endpoints.append(endpoint)
        problems += _collisions(endpoints)
        if problems:
            raise ContractError(problems)
        return cls(tuple(endpoints), files, pool)


def _public_methods(
    files: descriptor_pb2.FileDescriptorSet, pool: DescriptorPool
) -> Iterator[tuple[MethodDescriptor, HttpRule]]:
    for file in files.file:
        for service in file.service:
            for method in pool.FindServiceByName(f"{file.package}.{service.name}").methods:
                options = method.GetOptions()
                if options.HasExtension(annotations_pb2.http):
                    yield method, options.Extensions[annotations_pb2.http]


def _endpoint(
    method: MethodDescriptor, rule: HttpRule, declared: Mapping[str, Policy]
) -> tuple[Endpoint | None, list[str]]:
    name = f"/{method.containing_service.full_name}/{method.name}"
    verb = rule.WhichOneof("pattern")
    if verb not in _VERBS:
        return None, [f"{name}: {verb or 'no'} HTTP method is not served"]
    template: str = getattr(rule, verb)
    endpoint = Endpoint(method, declared[name], verb.upper(), template, rule.body)
    problems = [*_policy_problems(endpoint), *_shape_problems(endpoint, rule)]
    return endpoint, [f"{name}: {problem}" for problem in problems]


def _policy_problems(endpoint: Endpoint) -> Iterator[str]:
    policy = endpoint.policy
    message = policy.message
    outside = policy.callers - {CallerKind.SERVICE}
    if not outside:
        yield "has an HTTP rule and nobody outside who may call it"
    if policy.tenant and outside & {CallerKind.ANONYMOUS, CallerKind.PLATFORM_OPERATOR}:
        yield "is on the tenant plane for callers that have no account"
    if policy.personal and outside - _PEOPLE:
        yield "is on the personal plane for callers who are no people"
    if not policy.tenant and not policy.personal and outside & _TENANT_KINDS:
        yield "is on the platform plane for callers of a tenant"
    if policy.safe != (endpoint.verb == "GET"):
        yield "must be idempotency SAFE exactly when its HTTP method is GET"
    if message.HasField("assurance") and message.assurance.acr not in ("", *ASSURANCE_LEVELS):
        yield f"asks for an unknown assurance {message.assurance.acr}"
    if message.HasField("approval"):
        # Serving it would let one person do what two must agree on.
        yield "asks for approval by several people, which nothing here enforces"
    if not 200 <= (message.success_status or 200) <= 299:
        yield "has a success status that is none"
    if message.cost < 0 or message.max_body_bytes < 0:
        yield "has a negative cost or size"


def _shape_problems(endpoint: Endpoint, rule: HttpRule) -> Iterator[str]:
    method = endpoint.method
    if method.client_streaming or method.server_streaming:
        yield "streams, which has no HTTP form"
    if rule.additional_bindings or rule.response_body:
        yield "has additional bindings or a response body, which are not served"
    if not endpoint.template.startswith("/") or not all(
        _SEGMENT.fullmatch(part) for part in endpoint.template[1:].split("/")
    ):
        yield f"has a path that is not served: {endpoint.template}"
    names = {field.name: field for field in fields_of(endpoint.request)}
    for variable in endpoint.variables:
        if variable not in names or names[variable].shape.kind not in _SCALARS:
            yield f"has no scalar field for {variable} in its path"
        elif not names[variable].required:
            yield f"{variable} stands in the path and must be REQUIRED"
    if endpoint.body not in ("", "*", *names):
        yield f"has no field {endpoint.body} for its body"
        return
    if endpoint.verb == "GET" and endpoint.body:
        yield "is a GET with a body"
    for field in endpoint.query_fields:
        if field.shape.kind not in _SCALARS or field.key is not None:
            yield f"{field.name} cannot be written as a query parameter"
    for field in endpoint.header_fields:
        if field.shape.kind is not Kind.TEXT or field.repeated:
            yield f"{field.name} is filled from a header and must be a text"


def _collisions(endpoints: list[Endpoint]) -> Iterator[str]:
    seen: dict[tuple[str, str], Endpoint] = {}
    for endpoint in endpoints:
        key = (endpoint.verb, re.sub(r"\{[^}]*\}", "{}", endpoint.template))
        if key in seen:
            yield f"{endpoint.rpc}: has the route of {seen[key].rpc}"
        seen[key] = endpoint


RATE_CLASSES = {
    policy_pb2.RATE_CLASS_READ: "read",
    policy_pb2.RATE_CLASS_WRITE: "write",
    policy_pb2.RATE_CLASS_STRICT: "strict",
    policy_pb2.RATE_CLASS_BULK: "bulk",
    policy_pb2.RATE_CLASS_WEBHOOK: "webhook",
}
"""Names of the rate classes, as in configuration and headers."""
