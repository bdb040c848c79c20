"""Owns the publisher's sites and the way from an origin to its accounts."""

from uuid import UUID

from google.protobuf.message import Message

from libs import caller, errors, idempotency, ids
from libs.clock import Clock
from libs.postgres import Database
from services.subscriber.domain.site import Site, serialized_origin
from services.subscriber.repository import sites
from services.subscriber.usecases import present

MOST_NAME = 120


class Sites:
    """The web sites from which browsers may call."""

    def __init__(self, db: Database, clock: Clock, id_source: ids.IdSource) -> None:
        self._db = db
        self._clock = clock
        self._ids = id_source

    async def create_site(self, name: str, origin: str, request: Message) -> Site:
        """Adds a site; raises `invalid("origin_malformed")`, `invalid("name_length")`, `conflict("site_exists")`."""
        who = caller.current()
        account = who.require_account()
        if not 1 <= len(name.strip()) <= MOST_NAME:
            raise errors.invalid("name_length", f"A site's name has 1 to {MOST_NAME} characters.", field="name")
        site = Site(self._ids.new(), name.strip(), serialized_origin(origin), self._clock.now(account))
        async with self._db.tenant(account, "create_site") as conn:
            claim = await idempotency.claim(conn, who, "CreateSite", request, clock=self._clock)
            if claim.replay is not None:
                return present.read_site(claim.replay)
            await sites.insert(conn, account, site)
            await idempotency.record(conn, who, "CreateSite", present.site(site))
        return site

    async def list_sites(self) -> list[Site]:
        """Returns the account's sites, oldest first."""
        account = caller.current().require_account()
        async with self._db.tenant(account, "list_sites", read_only=True) as conn:
            return await sites.all_of(conn, account)

    async def resolve_origin(self, origin: str) -> list[UUID]:
        """Returns the accounts that have the origin as a site; none for what is no origin."""
        try:
            spelled = serialized_origin(origin)
        except errors.GatefoldError:
            return []
        async with self._db.transaction("resolve_origin", read_only=True) as conn:
            return await sites.accounts_of_origin(conn, spelled)
