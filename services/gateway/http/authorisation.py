"""Owns whether a caller may do what was asked: credential, plane, kind, scope, assurance."""

from collections import OrderedDict

from libs import admission, errors
from libs.caller import Caller, CallerKind
from libs.clock import WallClock
from libs.policies import Policy
from services.gateway.http.contracts import ASSURANCE_LEVELS, Endpoint

_MOST_ADMITTED = 20_000


class Authorisation:
    """Decides by the endpoint's policy; the service behind it decides again."""

    def __init__(self, clock: WallClock, *, closed: bool) -> None:
        self._clock = clock
        self._closed = closed
        self._admitted: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        """By method and lasting claims. What they may do by themselves never changes; others come with other claims."""

    def authorise(self, caller: Caller, endpoint: Endpoint) -> None:
        """Returns when the caller may call.

        Raises `unauthenticated("credential_required")`, what libs.admission raises, and
        `unauthenticated("authentication_insufficient")` with the challenge of RFC 9470.
        """
        policy = endpoint.policy
        asked = policy.method, caller.lasting_claims
        if asked not in self._admitted:
            self._admit(policy, caller)
            self._admitted[asked] = None
            if len(self._admitted) > _MOST_ADMITTED:
                self._admitted.popitem(last=False)
        if endpoint.assured:
            self._assure(caller, policy.message.assurance.acr, policy.message.assurance.max_age_seconds)

    def _admit(self, policy: Policy, caller: Caller) -> None:
        if caller.kind is CallerKind.ANONYMOUS and CallerKind.ANONYMOUS not in policy.callers:
            raise errors.unauthenticated("credential_required", "This needs an API key or an access token.")
        admission.admit(policy, admission.EDGE, caller, closed=self._closed)

    def _assure(self, caller: Caller, acr: str, max_age_seconds: int) -> None:
        strong = not acr or (caller.acr in ASSURANCE_LEVELS and caller.acr >= acr)
        fresh = not max_age_seconds or (
            caller.auth_time is not None and (self._clock.wall() - caller.auth_time).total_seconds() <= max_age_seconds
        )
        if strong and fresh:
            return
        challenge = {
            "error": "insufficient_user_authentication",
            "error_description": "A stronger or fresher authentication is required.",
        }
        if acr:
            challenge["acr_values"] = acr
        if max_age_seconds:
            challenge["max_age"] = str(max_age_seconds)
        raise errors.unauthenticated(
            "authentication_insufficient",
            "Sign in again, with a further factor if one is asked for.",
            metadata=challenge,
        )
