"""Owns what is known of addresses, programs and callers that come again and again: looked up and hashed once."""

from dataclasses import dataclass
from functools import lru_cache

from gatefold.activity.v1.activity_pb2 import Activity

from libs import ids
from libs.activity import USER_AGENT_LENGTH, Pseudonyms, device_of, network_of, shard_at
from libs.caller import Caller, CallerKind
from services.gateway.http.crawlers import Crawler, claimed
from services.gateway.http.places import NOWHERE, Place, Places

MOST_CLIENTS = 16_384
MOST_PROGRAMS = 4_096
MOST_ACTORS = 16_384
LONGEST_KEPT = 300
"""Of a User-Agent header; longer ones are few, and would take much memory."""


@dataclass(frozen=True, slots=True)
class Client:
    """What is known of an address."""

    place: Place
    address_hash: bytes
    network_hash: bytes
    told: bytes
    """What an activity says of it, serialised."""
    shard: int
    """Of the streams of activities, that which watches its network."""
    edition: int
    """Of the databases that its place is from."""


@dataclass(frozen=True, slots=True)
class Program:
    """What is known of a User-Agent header."""

    text: str
    """As much of it as counts."""
    claim: Crawler | None
    """The crawler it says it is."""
    hash: bytes
    told: bytes
    """What an activity says of it, serialised."""


@dataclass(frozen=True, slots=True)
class Actor:
    """What is known of a caller with a program."""

    kind: str
    account: str
    """`acct_…`; empty where none is known."""
    hash: bytes
    """Empty for the anonymous."""
    session_hash: bytes
    device_hash: bytes
    told: bytes
    """What an activity says of it, serialised."""


NOBODY = Client(NOWHERE, b"", b"", b"", shard_at(b""), 0)
"""Where no address is known."""
UNNAMED = Program("", None, b"", b"")
"""Who sent no User-Agent."""


class Clients:
    """Clients, programs and actors. Of an address nothing changes but its place, and that only with the databases."""

    def __init__(self, pseudonyms: Pseudonyms, places: Places) -> None:
        self._hash = pseudonyms.of
        self._places = places
        self._clients: dict[str, Client] = {}
        self._program = lru_cache(MOST_PROGRAMS)(self._made)
        self._actors: dict[tuple[bytes, str], Actor] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def of(self, address: str) -> Client:
        """Returns what is known of an address; an empty one is nobody's."""
        found = self._clients.get(address)
        if found is None or found.edition != self._places.edition:
            if not address:
                return NOBODY
            if len(self._clients) >= MOST_CLIENTS:
                self._clients.clear()
            found = self._clients[address] = self._looked_up(address)
        return found

    def program(self, agent: str) -> Program:
        """Returns what is known of a User-Agent header."""
        if len(agent) > LONGEST_KEPT:
            return self._made(agent)
        return self._program(agent)

    def actor(self, caller: Caller, program: Program) -> Actor:
        """Returns what is known of a caller with a program."""
        # The claims are all that lasts of a caller, without what is of one request.
        key = (caller.lasting_claims, program.text)
        found = self._actors.get(key)
        if found is None:
            if len(self._actors) >= MOST_ACTORS:
                self._actors.clear()
            found = self._actors[key] = self._met(caller, program.text)
        return found

    def _looked_up(self, address: str) -> Client:
        # Before the place: what is replaced in between is looked up anew.
        edition = self._places.edition
        place = self._places.of(address)
        told = Activity(
            client_address_hash=self._hash("address", address),
            client_network_hash=self._hash("network", network_of(address)),
            geo_country_iso_code=place.country,
            client_asn=place.asn,
        )
        if place.latitude is not None and place.longitude is not None:
            told.geo_location_lat, told.geo_location_lon = place.latitude, place.longitude
        network = told.client_network_hash
        return Client(place, told.client_address_hash, network, told.SerializeToString(), shard_at(network), edition)

    def _made(self, agent: str) -> Program:
        if not agent:
            return UNNAMED
        text = agent[:USER_AGENT_LENGTH]
        told = Activity(user_agent_hash=self._hash("user_agent", text))
        return Program(text, claimed(agent), told.user_agent_hash, told.SerializeToString())

    def _met(self, caller: Caller, agent: str) -> Actor:
        told = Activity(caller_kind=caller.kind.name)
        if caller.account is not None:
            told.account_id = ids.encode("acct", caller.account)
        if caller.kind is not CallerKind.ANONYMOUS:
            told.actor_hash = self._hash("actor", caller.actor)
        if caller.session is not None:
            told.session_hash = self._hash("session", ids.encode("ses", caller.session))
            if agent:
                told.device_hash = self._hash("device", device_of(caller.actor, agent))
        packed = told.SerializeToString()
        return Actor(told.caller_kind, told.account_id, told.actor_hash, told.session_hash, told.device_hash, packed)
