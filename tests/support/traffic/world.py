"""Owns what a simulated request is, who sends it, and the world it comes from: places, networks, agents, names."""

import itertools
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum

HOUR = 3600.0
DAY = 24 * HOUR


class Answer(Enum):
    """What the edge did with a request."""

    SERVED = "served"
    TAGGED = "tagged"
    """Served, and noted."""
    CHALLENGED = "challenged"
    """Asked for a proof, which was not given."""
    THROTTLED = "throttled"
    BLOCKED = "blocked"


class Level(IntEnum):
    """How hard an attacker tries not to be seen."""

    NAIVE = 1
    """One place, one tool, as fast as it goes."""
    DISTRIBUTED = 2
    """Many addresses, each of which does little."""
    SLOW = 3
    """Under each published limit, for hours."""
    MIMIC = 4
    """Browsers' agents, homes' addresses, pauses, and requests that mean nothing in between."""
    PROBING = 5
    """As the former, and looks at the answers: what is refused is left alone for longer and longer, elsewhere."""


@dataclass(frozen=True, slots=True)
class Place:
    """A town, and who connects it."""

    country: str
    latitude: int
    longitude: int
    asn: int


PLACES = (
    Place("DE", 52, 13, 3320),
    Place("DE", 48, 12, 3320),
    Place("FR", 49, 2, 3215),
    Place("GB", 51, 0, 2856),
    Place("US", 41, -74, 7922),
    Place("US", 34, -118, 7018),
    Place("ES", 40, -4, 3352),
    Place("IT", 42, 12, 3269),
    Place("PL", 52, 21, 5617),
    Place("CA", 44, -79, 577),
    Place("BR", -24, -47, 28573),
    Place("IN", 19, 73, 55836),
    Place("VN", 21, 106, 7552),
    Place("ID", -6, 107, 17974),
    Place("NG", 6, 3, 37148),
    Place("AU", -34, 151, 1221),
)
HOME_PLACES = PLACES[:10]
HOSTING = (Place("NL", 52, 5, 14061), Place("US", 39, -77, 16509), Place("DE", 50, 9, 24940), Place("FR", 50, 3, 16276))
BROWSERS = tuple(
    f"Mozilla/5.0 ({system}) {engine}"
    for system, engine in itertools.product(
        (
            "Windows NT 10.0; Win64; x64",
            "Macintosh; Intel Mac OS X 10_15_7",
            "X11; Linux x86_64",
            "iPhone; CPU iPhone OS 18_1 like Mac OS X",
            "Linux; Android 15; Pixel 8",
            "Linux; Android 14; SM-S911B",
        ),
        (
            *(f"AppleWebKit/537.36 Chrome/{version}.0.0.0 Safari/537.36" for version in range(138, 146)),
            *(f"Gecko/20100101 Firefox/{version}.0" for version in range(140, 146)),
            "AppleWebKit/605.1.15 Version/18.1 Safari/605.1.15",
        ),
    )
)
TOOLS = ("python-requests/2.32.3", "curl/8.9.1", "Go-http-client/2.0", "okhttp/4.12.0", "axios/1.7.7")


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from."""

    address: str
    agent: str
    place: Place
    device: str = ""
    """What the browser is known by; empty where it keeps nothing."""


@dataclass(frozen=True, slots=True)
class Inner:
    """What happened behind the edge while a request was served."""

    event: str
    target: str = ""
    status: int = 200
    reason: str = ""
    amount_minor: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One request, and what the product answers if the edge lets it through."""

    at: float
    """Seconds from the beginning."""
    client: Client
    account: str
    method: str
    route: str
    caller_kind: str
    actor: str = ""
    session: str = ""
    target: str = ""
    status: int = 200
    reason: str = ""
    inner: tuple[Inner, ...] = ()
    response_bytes: int = 1200
    verified_crawler: bool = False
    damage: int = 0
    """What an attacker gains by it: accounts opened, cards found good, articles taken, codes found."""
    bystander: bool = False
    """Sent by an attack's victim, who means no harm."""


Behaviour = Generator[Request, Answer, None]


@dataclass(slots=True)
class Actor:
    """Somebody or something that sends requests, with the truth about it."""

    name: str
    kind: str
    """`reader`, `office`, …, or the family of an attack."""
    behaviour: Behaviour
    level: Level | None = None
    """None for the honest."""
    hard: bool = False
    """Honest, and looks like an attack."""
    solves: float = 0.97
    """How often a challenge is passed."""

    @property
    def attacker(self) -> bool:
        """Whether it means harm."""
        return self.level is not None


@dataclass
class World:
    """One seed's places, people and names; everything random comes from here."""

    seed: int
    hours: float = 8.0
    pace: float = 1.0
    """How many times as long attackers pause."""
    chance: random.Random = field(init=False)
    accounts: tuple[str, ...] = field(init=False)
    _numbers: "itertools.count[int]" = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.accounts = tuple(f"acct_{self.seed}{name}" for name in ("daily", "weekly", "guild"))
        self._numbers = itertools.count(1)

    @property
    def seconds(self) -> float:
        """How long the world is looked at."""
        return self.hours * HOUR

    def name(self, prefix: str) -> str:
        """Returns a name that nobody else has."""
        return f"{prefix}_{self.seed}_{next(self._numbers)}"

    def address(self, place: Place) -> str:
        """Returns an address of a place's provider; two clients seldom get the same network."""
        first = 20 + (place.asn + abs(place.latitude)) % 180
        return f"{first}.{self.chance.randrange(256)}.{self.chance.randrange(256)}.{self.chance.randrange(1, 255)}"

    def home(self, places: tuple[Place, ...] = HOME_PLACES) -> Client:
        """Returns somebody's browser at home."""
        place = self.chance.choice(places)
        return Client(self.address(place), self.chance.choice(BROWSERS), place, self.name("dev"))

    def server(self, agent: str | None = None) -> Client:
        """Returns a machine in a data centre."""
        place = self.chance.choice(HOSTING)
        return Client(self.address(place), agent or self.chance.choice(TOOLS), place)

    def start(self, share: float = 0.8) -> float:
        """Returns a moment in the first part of the time looked at."""
        return self.chance.uniform(0, self.seconds * share)

    def pause(self, mean: float) -> float:
        """Returns a pause in seconds, as of arrivals that know nothing of each other."""
        return self.chance.expovariate(1 / mean)


def elsewhere(world: World, client: Client, places: tuple[Place, ...] = PLACES) -> Client:
    """Returns the same browser at another address."""
    place = world.chance.choice(places)
    return replace(client, address=world.address(place), place=place)


Maker = Callable[[World], Actor]
