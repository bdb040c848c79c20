"""Owns what a sign-in still needs: which proofs make which assurance, and a sign-in that waits for more."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from libs import errors
from services.auth.domain import session
from services.auth.domain.roles import OWNER

PASSWORD = "password"  # noqa: S105 — a method's name
EMAIL_LINK = "email_link"
FEDERATED = "federated"
FEDERATED_STRONG = "federated_strong"
"""By a provider that asks for a second factor itself, and is trusted to."""
TOTP = "totp"
PASSKEY = "passkey"
SECURITY_KEY = "security_key"
RECOVERY_CODE = "recovery_code"
EMAIL_CODE = "email_code"

SECOND_FACTOR = "second_factor"
CHANGE_PASSWORD = "change_password"  # noqa: S105 — a step's name
PROVE_MAILBOX = "prove_mailbox"

LIFETIME = timedelta(minutes=10)
MOST_TRIES = 5
"""Second factors that may be tried; then the sign-in is over and the password is asked for again."""

_PLATFORM = UUID(int=0)

_FIRST = frozenset({PASSWORD, EMAIL_LINK, FEDERATED, FEDERATED_STRONG})
_SECOND = frozenset({TOTP, PASSKEY, SECURITY_KEY, RECOVERY_CODE, EMAIL_CODE})


@dataclass(frozen=True)
class Door:
    """Where somebody goes in, and as whom."""

    kind: str
    """STAFF, SUBSCRIBER or PLATFORM_OPERATOR."""
    account: UUID
    """The session's; the nil UUID for the operator."""
    live: bool
    principal: UUID
    """The person, or the reader's subject."""
    role: str | None = None
    identity: UUID | None = None
    """The identity at another provider that they came with; to staff it opens the account, and nothing of their own."""
    device: UUID | None = None
    """The device that they showed to have signed in on before; it keeps its name."""

    @property
    def federated_staff(self) -> bool:
        """Whether an account's own provider says who this person is: what is theirs elsewhere is no business of its."""
        return self.kind == session.STAFF and self.identity is not None

    @property
    def owner(self) -> UUID:
        """The account under which the principal's own rows are kept: a reader's, or the platform for a person."""
        return self.account if self.kind == session.SUBSCRIBER else _PLATFORM


@dataclass(frozen=True)
class Standing:
    """What is known of whoever goes in."""

    factors: tuple[str, ...] = ()
    """Second factors that are set up, the best first."""
    factor_required: bool = False
    """The account asks all its staff for a second factor."""
    password_must_change: bool = False
    provider_required: bool = False
    """The account's staff come in by its provider alone."""


@dataclass(frozen=True)
class Pending:
    """A sign-in that waits."""

    id: UUID
    door: Door
    proven: tuple[str, ...]
    """Methods so far."""
    next: str
    methods: tuple[str, ...]
    """Those to choose from, when a second factor is what it waits for."""
    expires_at: datetime
    must_change: bool = False
    """The password that was proven is known to attackers."""
    session: UUID | None = None
    """The session that is proven anew (step-up); None where a new one is to begin."""


def step(proven: tuple[str, ...], standing: Standing) -> str | None:
    """Returns what comes next; None when the session may begin.

    The second factor comes before the new password, so that a breached password alone changes nothing.
    """
    if methods(proven, standing) and not strong(proven):
        return SECOND_FACTOR
    if standing.password_must_change and PASSWORD in proven:
        return CHANGE_PASSWORD
    return None


def strong(proven: tuple[str, ...]) -> bool:
    """Tells whether the proofs make two factors; a passkey does by itself, since it verifies its user;
    a security key does not.

    A link and a code that went to the same mailbox are one factor.
    """
    second = _SECOND.intersection(proven)
    first = _FIRST.intersection(proven) - ({EMAIL_LINK} if second == {EMAIL_CODE} else set())
    return not {PASSKEY, FEDERATED_STRONG}.isdisjoint(proven) or bool(first and second)


def methods(proven: tuple[str, ...], standing: Standing) -> tuple[str, ...]:
    """Returns the second factors that would add to what was proven.

    A code by mail adds nothing to a link by mail; nor does it alone to a session (step-up), for whoever holds the
    mailbox may have begun the session with it.
    """
    return tuple(one for one in standing.factors if one != EMAIL_CODE or strong((*proven, one)))


def refuse(door: Door, standing: Standing, level: str) -> None:
    """Raises `forbidden` for a session that may not begin although nothing more can be proven.

    The reason is `provider_too_weak` or `provider_required`.
    """
    if door.federated_staff and level == session.ENROL:
        # Factors are the person's own, which such a session must not touch: it could do nothing at all.
        raise errors.forbidden(
            "provider_too_weak", "The account asks for a second factor, and its provider is not set up to ask for one."
        )
    if door.kind == session.STAFF and not door.federated_staff and standing.provider_required and door.role != OWNER:
        raise errors.forbidden("provider_required", "This account's staff sign in with its own provider.")


def acr(proven: tuple[str, ...], standing: Standing) -> str:
    """Returns the assurance of the session that begins (NIST SP 800-63B-4, 2)."""
    if strong(proven):
        return session.AAL2
    return session.ENROL if standing.factor_required else session.AAL1
