"""Owns the one matrix of roles and scopes: what each member of a team may do, and what keys may hold."""

from types import MappingProxyType

OWNER = "owner"
ADMIN = "admin"
FINANCE = "finance"
SUPPORT = "support"
SALES = "sales"
DEVELOPER = "developer"
PRIVACY_OFFICER = "privacy_officer"
READ_ONLY = "read_only"

OPERATOR = "operator"
"""The platform operator's role in tokens; no scope, since no RPC of the platform plane asks for one."""

# One row a scope: who holds it besides owner and admin, who hold all.
_HELD_BY: dict[str, frozenset[str]] = {
    "abuse:read": frozenset({SUPPORT, PRIVACY_OFFICER}),
    "abuse:write": frozenset(),
    "access:read": frozenset({SUPPORT, DEVELOPER, READ_ONLY}),
    "activity:write": frozenset({DEVELOPER}),
    "catalogue:read": frozenset({FINANCE, SUPPORT, SALES, DEVELOPER, READ_ONLY}),
    "catalogue:write": frozenset({SALES, DEVELOPER}),
    "checkouts:read": frozenset({FINANCE, SUPPORT, SALES, DEVELOPER, READ_ONLY}),
    "checkouts:write": frozenset({SUPPORT, SALES, DEVELOPER}),
    "credentials:write": frozenset(),
    "identity_providers:read": frozenset({DEVELOPER}),
    "identity_providers:write": frozenset(),
    "invoices:read": frozenset({FINANCE, SUPPORT, READ_ONLY}),
    "keys:read": frozenset({DEVELOPER}),
    "keys:write": frozenset({DEVELOPER}),
    "ledger:read": frozenset({FINANCE}),
    "mails:read": frozenset({SUPPORT, DEVELOPER}),
    "oauth_clients:read": frozenset({DEVELOPER}),
    "oauth_clients:write": frozenset({DEVELOPER}),
    "payment_connections:read": frozenset({FINANCE, DEVELOPER}),
    "payment_connections:write": frozenset(),
    "security:read": frozenset({DEVELOPER, PRIVACY_OFFICER}),
    "security:write": frozenset(),
    "sessions:write": frozenset({SUPPORT}),
    "sites:read": frozenset({SUPPORT, SALES, DEVELOPER, READ_ONLY}),
    "sites:write": frozenset({DEVELOPER}),
    "subscribers:read": frozenset({FINANCE, SUPPORT, SALES, PRIVACY_OFFICER, READ_ONLY}),
    "subscribers:write": frozenset({SUPPORT}),
    "subscriptions:read": frozenset({FINANCE, SUPPORT, SALES, PRIVACY_OFFICER, READ_ONLY}),
    "team:read": frozenset({FINANCE, SUPPORT, SALES, DEVELOPER, PRIVACY_OFFICER, READ_ONLY}),
    "team:write": frozenset(),
    "test_clock:write": frozenset({DEVELOPER}),
    "webhooks:read": frozenset({DEVELOPER}),
    "webhooks:write": frozenset({DEVELOPER}),
}

SCOPES = frozenset(_HELD_BY)
"""Every scope that an RPC asks for."""

ROLES = (OWNER, ADMIN, FINANCE, SUPPORT, SALES, DEVELOPER, PRIVACY_OFFICER, READ_ONLY)

ROLE_SCOPES = MappingProxyType(
    {
        role: SCOPES if role in {OWNER, ADMIN} else frozenset(scope for scope, held in _HELD_BY.items() if role in held)
        for role in ROLES
    }
)

KEY_SCOPES = SCOPES - {
    "abuse:write",
    "identity_providers:read",
    "identity_providers:write",
    "keys:read",
    "keys:write",
    "oauth_clients:write",
    "payment_connections:write",
    "security:read",
    "security:write",
    "team:read",
    "team:write",
}
"""What a secret key may hold: nothing that makes keys or members, says who people are or where money goes, so that a
leaked key does not outlive its end."""

PUBLISHABLE_KEY_SCOPES = frozenset({"access:read"})
"""What a publishable key may hold: it stands in every page, so nothing that writes or shows personal data."""


def scopes_of(role: str) -> frozenset[str]:
    """Returns the scopes of a role; none for one that is not a team's."""
    return ROLE_SCOPES.get(role, frozenset())


def may_move(mover: str | None, before: str, after: str | None, *, own: bool) -> bool:
    """Tells whether a member may give another role `after`, or none.

    Owners are made and unmade by owners alone, and nobody changes their own role but an owner who steps down: so
    nobody raises themselves.
    """
    if own and mover != OWNER:
        return False
    return mover == OWNER or OWNER not in (before, after)


def may_invite(inviter: str | None, role: str) -> bool:
    """Tells whether a member may invite into a role: owners are made by owners alone."""
    return role in ROLE_SCOPES and (role != OWNER or inviter == OWNER)
