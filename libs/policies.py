"""Owns reading the edge policy that each RPC declares in its proto."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gatefold.edge.v1 import policy_pb2
from google.protobuf import descriptor, descriptor_pb2, descriptor_pool

from libs.caller import CallerKind

_SAFE = policy_pb2.IDEMPOTENCY_SAFE
_KEYED = frozenset({policy_pb2.IDEMPOTENCY_OPTIONAL, policy_pb2.IDEMPOTENCY_REQUIRED})
_REPEATABLE = frozenset({policy_pb2.IDEMPOTENCY_SAFE, policy_pb2.IDEMPOTENCY_NATURAL})


class PolicyError(Exception):
    """A method has no policy, or one that contradicts itself."""


@dataclass(frozen=True)
class Policy:
    """The policy of one method, in the shapes that are asked for at each call."""

    method: str
    """Full name as gRPC spells it: `/gatefold.billing.v1.CatalogueService/CreateProduct`."""
    message: policy_pb2.Policy
    tenant: bool
    """On the tenant plane."""
    personal: bool
    """On the personal plane; on neither, it is on the platform's."""
    scope: str
    callers: frozenset[CallerKind]
    peers: frozenset[str]
    safe: bool
    """Changes nothing."""
    repeatable: bool
    """May be called again when the outcome of a call is not known, also without a key."""
    keyed: bool
    """May be called again when the outcome is not known and the call carries an idempotency key."""


def of(method: str) -> Policy:
    """Returns the policy of a method (`/package.Service/Method`) whose generated module is imported.

    Raises PolicyError when the method is unknown, has no policy, or its policy is incomplete or contradicts itself.
    """
    service, _, name = method.removeprefix("/").rpartition("/")
    try:
        found: descriptor.MethodDescriptor = descriptor_pool.Default().FindMethodByName(f"{service}.{name}")
    except KeyError:
        raise PolicyError(f"{method} is not in any imported contract") from None
    return _read(method, found.GetOptions())


def load(descriptor_set: Path) -> Mapping[str, Policy]:
    """Returns the policies of all methods of a compiled descriptor set (`gen/descriptors.binpb`) by full name."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set.read_bytes())
    return {name: _read(name, options) for name, options in _methods(files)}


def _methods(files: descriptor_pb2.FileDescriptorSet) -> Iterator[tuple[str, descriptor_pb2.MethodOptions]]:
    for file in files.file:
        for service in file.service:
            for method in service.method:
                yield f"/{file.package}.{service.name}/{method.name}", method.options


def _read(method: str, options: descriptor_pb2.MethodOptions) -> Policy:
    if not options.HasExtension(policy_pb2.policy):
        raise PolicyError(f"{method} has no policy")
    message = options.Extensions[policy_pb2.policy]
    if not (message.plane and message.rate and message.idempotency):
        raise PolicyError(f"{method} must state plane, rate and idempotency")
    if policy_pb2.CALLER_KIND_UNSPECIFIED in message.callers:
        raise PolicyError(f"{method} names an unspecified caller")
    # No callers means services only, as the contract says.
    callers = frozenset(CallerKind(number) for number in message.callers) or frozenset({CallerKind.SERVICE})
    if (CallerKind.SERVICE in callers) != bool(message.peers):
        raise PolicyError(f"{method} must name its peers exactly when services may call it")
    return Policy(
        method=method,
        message=message,
        tenant=message.plane == policy_pb2.PLANE_TENANT,
        personal=message.plane == policy_pb2.PLANE_PERSONAL,
        scope=message.scope,
        callers=callers,
        peers=frozenset(message.peers),
        safe=message.idempotency == _SAFE,
        repeatable=message.idempotency in _REPEATABLE,
        keyed=message.idempotency in _KEYED,
    )
