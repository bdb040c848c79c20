"""Owns whose sign-in a request is about: the caller's own, on the personal plane."""

from uuid import UUID

from libs import caller, errors
from libs.caller import CallerKind
from libs.postgres import PLATFORM
from services.auth.domain.sign_in import Door
from services.auth.usecases.sign_in import sign_in_expired


def own() -> Door:
    """Returns the door through which the caller came in; raises `forbidden("plane_not_allowed")` for no person."""
    who = caller.current()
    principal = who.subject if who.kind is CallerKind.SUBSCRIBER else who.person
    if principal is None:
        raise errors.forbidden("plane_not_allowed", "Only people who are signed in may do this, for themselves.")
    return Door(who.kind.name, who.account or PLATFORM, who.live, principal, who.role)


def session() -> UUID:
    """Returns the session of the request; raises `unauthenticated("sign_in_expired")` without one."""
    held = caller.current().session
    if held is None:
        raise sign_in_expired()
    return held
