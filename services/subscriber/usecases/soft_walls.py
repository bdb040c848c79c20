"""Owns soft walls: for whom the paywall's answer says that they look like abuse."""

from uuid import UUID

from gatefold.activity.v1 import activity_pb2

from libs import ids
from libs.activity import Pseudonyms, network_of
from libs.caller import Caller, CallerKind

SCOPES = ("actor", "session", "address", "network")
ACTIONS = (
    activity_pb2.Verdict.ACTION_CHALLENGE,
    activity_pb2.Verdict.ACTION_THROTTLE,
    activity_pb2.Verdict.ACTION_BLOCK,
    activity_pb2.Verdict.ACTION_REVOKE,
)


class SoftWalls:
    """Knows what verdicts name a reader by."""

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self._hash = pseudonyms.of

    def entities(self, caller: Caller, subject: UUID | None) -> list[tuple[str, bytes]]:
        """Returns scopes and hashes of whom is asked about.

        A secret key asks from the publisher's own server: where it comes from says nothing of the reader.
        """
        found = [("actor", self._hash("actor", ids.encode("subj", subject)))] if subject is not None else []
        if caller.kind is not CallerKind.SECRET_KEY:
            address = caller.address or ""
            found += [
                ("session", self._hash("session", ids.encode("ses", caller.session) if caller.session else "")),
                ("address", self._hash("address", address)),
                ("network", self._hash("network", network_of(address))),
            ]
        return [(scope, entity) for scope, entity in found if entity]
