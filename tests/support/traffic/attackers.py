"""Owns attacks: each family at five levels, as the requests that such campaigns send."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tests.support.traffic import requests
from tests.support.traffic.honest import article, past, served
from tests.support.traffic.world import (
    BROWSERS,
    HOUR,
    PLACES,
    TOOLS,
    Actor,
    Answer,
    Behaviour,
    Client,
    Level,
    Request,
    World,
    elsewhere,
)


@dataclass(frozen=True)
class Effort:
    """How much of an attack is made at a level."""

    attempts: int
    addresses: int
    """How many it comes from; each is used in turn."""
    pause: float
    """Mean seconds between two attempts."""


_EFFORT = {
    Level.NAIVE: Effort(1200, 1, 0.4),
    Level.DISTRIBUTED: Effort(2500, 2500, 0.8),
    Level.SLOW: Effort(1200, 24, 6.0),
    Level.MIMIC: Effort(1000, 120, 8.0),
    Level.PROBING: Effort(1000, 120, 8.0),
}
LONGEST_PAUSE = HOUR


class Footing:
    """Where an attacker stands: which client asks next, and when; looks at answers where the level does."""

    def __init__(self, world: World, level: Level, share: float = 1.0, *, slowest: float = 1.0) -> None:
        """`share` of the level's attempts are made, with pauses `slowest` times as long."""
        effort = _EFFORT[level]
        self.world = world
        self.level = level
        self.attempts = max(6, int(effort.attempts * share))
        self.at = world.start(0.35)
        self._pause = effort.pause * slowest * world.pace
        self._agent = world.chance.choice(TOOLS if level <= Level.SLOW else BROWSERS)
        number = max(1, min(effort.addresses, self.attempts))
        self._clients = [self._client() for _ in range(number)]
        self._turn = 0
        self._backing_off = 1.0

    def next(self, answer: Answer) -> Client:
        """Returns who asks next, after an answer, and moves the time on."""
        if self.level is Level.PROBING and answer is not Answer.SERVED:
            # This one is known now: another, and later.
            self._clients[self._turn % len(self._clients)] = self._client()
            self._backing_off = min(self._backing_off * 2, LONGEST_PAUSE / self._pause)
        else:
            self._backing_off = max(1.0, self._backing_off * 0.9)
        self._turn += 1
        self.at += self.world.pause(self._pause * self._backing_off)
        return self._clients[self._turn % len(self._clients)]

    @property
    def over(self) -> bool:
        """Whether it is time to go home."""
        return self.at >= self.world.seconds

    def _client(self) -> Client:
        if self.level is Level.NAIVE:
            return self.world.server(self._agent)
        if self.level >= Level.MIMIC:
            return self.world.home(PLACES)
        # Other people's machines, with one tool for all of them.
        return replace(self.world.home(PLACES), agent=self._agent, device="")

    def idle(self, client: Client, account: str) -> Iterator[Request]:
        """Yields what is asked in between so as to look like a reader."""
        if self.level >= Level.MIMIC and self.world.chance.random() < 0.5:
            yield requests.read(self.at, client, account, article(self.world))
            self.at += 2 + self.world.pause(6)


def _stuffing(world: World, level: Level) -> Behaviour:
    # A list of addresses and passwords from elsewhere: one in a hundred fits.
    footing, account = Footing(world, level), world.chance.choice(world.accounts)
    answer = Answer.SERVED
    for _ in range(footing.attempts):
        client = footing.next(answer)
        if footing.over:
            return
        yield from footing.idle(client, account)
        fits = world.chance.random() < 0.01
        outcome = "right" if fits else world.chance.choice(("wrong", "unknown", "unknown"))
        answer = yield requests.sign_in(footing.at, client, account, world.name("victim"), outcome, damage=int(fits))


def _brute_force(world: World, level: Level) -> Behaviour:
    # One victim; the product makes whoever tries wait after ten.
    footing, account = Footing(world, level, 0.35, slowest=3), world.chance.choice(world.accounts)
    victim, answer, free_from = world.name("subj"), Answer.SERVED, 0.0
    tries = 0
    for _ in range(footing.attempts):
        client = footing.next(answer)
        if footing.over:
            return
        yield from footing.idle(client, account)
        delayed = footing.at < free_from
        if not delayed:
            tries += 1
            free_from = footing.at + min(3600, 30 * 2 ** max(0, tries - 10)) if tries >= 10 else 0.0
        hit = not delayed and world.chance.random() < 0.002
        outcome = "delayed" if delayed else "right" if hit else "wrong"
        answer = yield requests.sign_in(footing.at, client, account, victim, outcome, damage=int(hit))


def _takeover(world: World, level: Level) -> Behaviour:
    # Passwords that are known already: in, and the mailbox and the password made one's own.
    footing, account = Footing(world, level, 0.05, slowest=20), world.chance.choice(world.accounts)
    answer = Answer.SERVED
    victims = [(world.name("subj"), world.home()) for _ in range(footing.attempts)]
    before = [request for victim, home in victims for request in past(world, home, account, victim, 1)]
    for request in sorted(before, key=lambda request: request.at):
        yield replace(request, bystander=True)
    for victim, home in victims:
        client = footing.next(answer)
        if footing.over:
            return
        # The victim reads here too, from home.
        yield replace(requests.sign_in(footing.at, home, account, victim), bystander=True)
        footing.at += 300
        answer = yield requests.sign_in(footing.at, client, account, victim)
        if answer is not Answer.SERVED:
            continue
        for method, route, gain in (
            ("GET", "/v1/me", 0),
            ("POST", "/v1/session/email", 1),
            ("POST", "/v1/session/change_password", 0),
            ("POST", "/v1/session/devices/end_others", 0),
        ):
            footing.at += 3 + world.pause(4)
            answer = yield requests.of_reader(footing.at, client, account, victim, method, route, damage=gain)


def _travel(world: World, level: Level) -> Behaviour:
    # A session that was stolen: used far away while its owner reads at home.
    account, victim, home = world.chance.choice(world.accounts), world.name("subj"), world.home()
    footing = Footing(world, level, 0.04, slowest=30)
    far = tuple(place for place in PLACES if abs(place.longitude - home.place.longitude) > 60)
    thief, answer = elsewhere(world, home, far), Answer.SERVED
    if level is Level.NAIVE:
        thief = replace(thief, agent=world.chance.choice(TOOLS), device="")
    elif level is not Level.MIMIC:
        thief = replace(thief, agent=world.chance.choice(BROWSERS), device=world.name("dev"))
    for request in past(world, home, account, victim):
        yield replace(request, bystander=True)
    yield replace(requests.sign_in(footing.at, home, account, victim), bystander=True)
    for _ in range(footing.attempts):
        footing.next(answer)
        if footing.over:
            return
        yield replace(requests.read(footing.at, home, account, article(world), victim), bystander=True)
        if level is Level.DISTRIBUTED:
            thief = elsewhere(world, thief, far)
        taken = requests.read(footing.at + 40, thief, account, article(world), victim, damage=1)
        answer = yield replace(taken, session=f"ses_{victim}_{home.device}")
        footing.at += 60


def _cards(world: World, level: Level) -> Behaviour:
    # Numbers of cards that were bought: which are good?
    footing, account = Footing(world, level, 0.4, slowest=2), world.chance.choice(world.accounts)
    answer, reader, left = Answer.SERVED, "", 0
    for _ in range(footing.attempts):
        client = footing.next(answer)
        if footing.over:
            return
        if left <= 0:
            # A new reader for every few cards, as far as the level cares.
            reader, left = world.name("subj"), {Level.NAIVE: 400, Level.DISTRIBUTED: 1}.get(level, 3)
            yield requests.register(footing.at, client, account, reader)
            footing.at += 3
        left -= 1
        good = world.chance.random() < 0.08
        answer = yield requests.pay(
            footing.at, client, account, reader, world.name("card"), good=good, amount=100, damage=int(good)
        )


def _scraping(world: World, level: Level) -> Behaviour:
    # The whole archive, one article after the other.
    footing, account = Footing(world, level, 2.0, slowest=0.5), world.chance.choice(world.accounts)
    answer, reader = Answer.SERVED, world.name("subj") if level is Level.MIMIC else ""
    first = world.chance.randrange(4000)
    for number in range(footing.attempts):
        client = footing.next(answer)
        if footing.over:
            return
        answer = yield requests.read(footing.at, client, account, f"art_{first + number}", reader, damage=1)


def _meter(world: World, level: Level) -> Behaviour:
    # The meter gives five articles to each browser: a fresh one for every five.
    footing, account = Footing(world, level, 0.25, slowest=6), world.chance.choice(world.accounts)
    answer = Answer.SERVED
    for number in range(footing.attempts):
        client = footing.next(answer)
        if footing.over:
            return
        if level is Level.NAIVE:
            client = replace(client, agent=BROWSERS[0])
        fresh = replace(client, device=world.name("dev"))
        for step in range(5):
            answer = yield requests.read(footing.at + 20 * step, fresh, account, article(world), damage=int(number > 0))
        footing.at += 100


def _sharing(world: World, level: Level) -> Behaviour:
    # One subscription sold to a crowd.
    account, reader = world.chance.choice(world.accounts), world.name("subj")
    crowd = {Level.NAIVE: 40, Level.DISTRIBUTED: 30, Level.SLOW: 14, Level.MIMIC: 14, Level.PROBING: 20}[level]
    places = PLACES if level <= Level.DISTRIBUTED else PLACES[:4]
    clients = [world.home(places) for _ in range(crowd)]
    footing, answer = Footing(world, level, 0.3, slowest=8), Answer.SERVED
    for _ in range(footing.attempts):
        footing.next(answer)
        if footing.over:
            return
        client = world.chance.choice(clients)
        answer = yield requests.read(footing.at, client, account, article(world), reader, damage=1)


def _guessing(world: World, level: Level) -> Behaviour:
    footing, account = Footing(world, level, 0.6), world.chance.choice(world.accounts)
    answer, gift = Answer.SERVED, world.chance.random() < 0.5
    for _ in range(footing.attempts):
        client = footing.next(answer)
        if footing.over:
            return
        yield from footing.idle(client, account)
        good = world.chance.random() < 0.003
        answer = yield requests.code(
            footing.at, client, account, world.name("guess"), good=good, gift=gift, damage=int(good)
        )


def _trials(world: World, level: Level) -> Behaviour:
    # A trial a week, for ever: new mailboxes, the same card or the same machine.
    footing, account = Footing(world, level, 0.05, slowest=15), world.chance.choice(world.accounts)
    answer, device = Answer.SERVED, world.name("dev")
    cards = [world.name("card") for _ in range({Level.NAIVE: 1, Level.DISTRIBUTED: 2}.get(level, 5))]
    for number in range(footing.attempts):
        client = footing.next(answer)
        if footing.over:
            return
        if level in {Level.NAIVE, Level.DISTRIBUTED, Level.SLOW}:
            client = replace(client, device=device)
        reader = world.name("subj")
        yield requests.register(footing.at, client, account, reader)
        footing.at += 30
        answer = yield requests.trial(
            footing.at, client, account, reader, cards[number % len(cards)], damage=int(number > 0)
        )


def _leaked_key(world: World, level: Level) -> Behaviour:
    # A secret key that was found in a repository: the owner's server goes on beside.
    account, key, own = world.chance.choice(world.accounts), world.name("key"), world.server("acme-backend/2.1")
    footing, answer = Footing(world, level, 0.5), Answer.SERVED

    def owner(target: str) -> Request:
        asked = requests.of_server(footing.at, own, account, key, "GET", "/v1/subscriptions", target=target)
        return replace(asked, bystander=True)

    for request in served(world, own, account, key):
        yield replace(request, bystander=True)
    for number in range(60):
        yield owner(f"s{number}")
        footing.at += 10
    for number in range(footing.attempts):
        client = footing.next(answer)
        if footing.over:
            return
        if number % 20 == 0:
            yield owner(f"t{number}")
        answer = yield requests.of_server(
            footing.at, client, account, key, "GET", "/v1/subscribers", target=f"page{number}", damage=1
        )


def _enumeration(world: World, level: Level) -> Behaviour:
    # Whose invoice is this? One identifier after the other.
    footing, account = Footing(world, level, 0.6), world.chance.choice(world.accounts)
    answer, reader = Answer.SERVED, world.name("subj")
    for number in range(footing.attempts):
        client = footing.next(answer)
        if footing.over:
            return
        if level >= Level.SLOW and number % 40 == 0:
            reader = world.name("subj")
        found = world.chance.random() < 0.01
        asked = requests.of_reader(
            footing.at, client, account, reader, "GET", "/v1/invoices/{id}", target=world.name("inv"), damage=int(found)
        )
        answer = yield asked if found else replace(asked, status=404, reason="invoice_unknown")


def _refunds(world: World, level: Level) -> Behaviour:
    # Bought, read to the end, and the money asked back; again under another name.
    footing, account = Footing(world, level, 0.04, slowest=15), world.chance.choice(world.accounts)
    answer, device = Answer.SERVED, world.name("dev")
    cards = [world.name("card") for _ in range({Level.NAIVE: 1, Level.DISTRIBUTED: 2}.get(level, 4))]
    reader = world.name("subj")
    for number in range(footing.attempts):
        client = footing.next(answer)
        if footing.over:
            return
        client = replace(client, device=device if level <= Level.SLOW else client.device)
        if level > Level.NAIVE:
            reader = world.name("subj")
        card = cards[number % len(cards)]
        answer = yield requests.pay(footing.at, client, account, reader, card, good=True)
        footing.at += 30
        if answer is Answer.SERVED:
            answer = yield requests.refund(footing.at, client, account, reader, card, damage=int(number > 0))


FAMILIES: dict[str, Callable[[World, Level], Behaviour]] = {
    "credential stuffing": _stuffing,
    "brute force": _brute_force,
    "account takeover": _takeover,
    "impossible travel": _travel,
    "card testing": _cards,
    "content scraping": _scraping,
    "meter evasion": _meter,
    "account sharing": _sharing,
    "code guessing": _guessing,
    "trial abuse": _trials,
    "key leak": _leaked_key,
    "id enumeration": _enumeration,
    "refund abuse": _refunds,
}
"""Those of the catalogue, by name."""

_SOLVES = {Level.NAIVE: 0.0, Level.DISTRIBUTED: 0.0, Level.SLOW: 0.0, Level.MIMIC: 0.3, Level.PROBING: 0.3}


def campaigns(world: World, but: frozenset[str] = frozenset()) -> list[Actor]:
    """Returns one campaign of each family at each level, but for those of some families."""
    return [
        Actor(world.name("attacker"), family, behave(world, level), level, solves=_SOLVES[level])
        for family, behave in FAMILIES.items()
        if family not in but
        for level in Level
    ]
