"""Owns who may call a method: which service vouches for which kind of caller, plane, account and scope."""

from libs import errors
from libs.caller import Caller, CallerKind
from libs.policies import Policy

EDGE = "gateway"
"""The one service that may vouch for callers from outside."""
ENROL_ONLY = "enrol"
"""The assurance of somebody who must add a second factor before anything else: below every other."""

_SCOPED = frozenset({CallerKind.SECRET_KEY, CallerKind.PUBLISHABLE_KEY, CallerKind.STAFF, CallerKind.OAUTH_CLIENT})
_PEOPLE = frozenset({CallerKind.STAFF, CallerKind.SUBSCRIBER, CallerKind.PLATFORM_OPERATOR})
_TENANTS_OWN = frozenset(
    {CallerKind.SECRET_KEY, CallerKind.PUBLISHABLE_KEY, CallerKind.STAFF, CallerKind.SUBSCRIBER, CallerKind.SCIM}
)


def admit(policy: Policy, issuer: str, caller: Caller, *, closed: bool) -> None:
    """Returns when this caller, vouched for by the service `issuer`, may call the method.

    Raises `forbidden` with reason `peer_not_allowed`, `caller_kind_not_allowed`, `plane_not_allowed`,
    `federated_session`, `enrolment_required` or `scope_missing`; `unauthenticated("account_required")`;
    `unavailable("closed_mode")` for writes while `closed`.
    The edge checks plane, kind and scope before; here they are checked again, because services trust nothing.
    """
    _admit_peer(policy, issuer, caller)
    if caller.kind not in policy.callers:
        raise errors.forbidden("caller_kind_not_allowed", "This kind of credential may not do this.")
    if policy.personal:
        if caller.kind not in _PEOPLE or caller.session is None:
            raise errors.forbidden("plane_not_allowed", "Only people who are signed in may do this, for themselves.")
        if caller.federated and caller.kind is CallerKind.STAFF and not policy.message.federated:
            raise errors.forbidden(
                "federated_session", "This is your own, not the account's: sign in with your own password for it."
            )
    elif caller.acr == ENROL_ONLY:
        raise errors.forbidden("enrolment_required", "Add a second factor first; this session is for nothing else.")
    elif policy.tenant:
        caller.require_account()
    elif caller.kind in _TENANTS_OWN:
        raise errors.forbidden("plane_not_allowed", "A publisher's credential may not do this.")
    if policy.scope and caller.kind in _SCOPED and policy.scope not in caller.scopes:
        raise errors.forbidden(
            "scope_missing", f"This needs the scope {policy.scope}.", metadata={"scope": policy.scope}
        )
    if closed and not policy.safe:
        raise errors.unavailable("closed_mode", "Changes are not accepted for the moment.", 30)


def _admit_peer(policy: Policy, issuer: str, caller: Caller) -> None:
    if caller.kind is CallerKind.SERVICE:
        allowed = issuer in policy.peers and caller.actor == f"service:{issuer}"
    else:
        allowed = issuer == EDGE
    if not allowed:
        raise errors.forbidden("peer_not_allowed", "This service may not call this method.")
