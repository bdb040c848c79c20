"""Owns what follows when a right password is found to be known to attackers: it must change, and its owner is told."""

from gatefold.auth.v1 import event_pb2

from libs import ids, outbox
from libs.ids import IdSource
from libs.postgres import PLATFORM, Connection, as_tenant
from services.auth.domain import challenge, session
from services.auth.domain.sign_in import Door
from services.auth.repository import credentials, people
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.facts import Facts


class BreachedPasswords:
    """Passwords that were lost since they were chosen."""

    def __init__(self, challenges: Challenges, facts: Facts, make: IdSource) -> None:
        self._challenges = challenges
        self._facts = facts
        self._make = make

    async def found(self, conn: Connection, door: Door) -> None:
        """Has the password changed before the next session begins; a mail and an event tell of it, once a password.

        In the transaction of the sign-in that found it, whoever that is: an attacker who has it tells on themselves.
        """
        if door.kind == session.SUBSCRIBER:
            first = await credentials.demand_change(conn, door.account, door.principal)
        else:
            first = await people.demand_change(conn, door.principal)
        if not first:
            return
        await self._challenges.tell(conn, door, challenge.PASSWORD_BREACHED)
        reader = door.kind == session.SUBSCRIBER
        data = event_pb2.PasswordBreached(principal_id=ids.encode("subj" if reader else "per", door.principal))
        event = self._facts.make(
            "password.breached",
            door.owner,
            ("breach", self._make.new()),
            data,
            live=door.live or door.owner == PLATFORM,
            subjects=(door.principal,) if reader else (),
        )
        async with as_tenant(conn, door.owner):
            await outbox.append(conn, event=event)
