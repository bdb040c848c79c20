"""Owns honest traffic: readers, and the systems and crowds that look like attacks and are none."""

from collections.abc import Iterator
from dataclasses import replace

from tests.support.traffic import requests
from tests.support.traffic.world import (
    DAY,
    HOME_PLACES,
    HOUR,
    PLACES,
    Actor,
    Answer,
    Behaviour,
    Client,
    Place,
    Request,
    World,
    elsewhere,
)

ARTICLES = 4000


def article(world: World) -> str:
    """Returns what is read: few things by many, most things by few."""
    return f"art_{int(world.chance.paretovariate(0.7)) % ARTICLES}"


def reading(world: World, at: float, client: Client, account: str, reader: str, number: int) -> Iterator[Request]:
    """Yields the articles that somebody opens one after the other."""
    for _ in range(number):
        yield requests.read(at, client, account, article(world), reader)
        at += 5 + world.pause(60)


def past(world: World, client: Client, account: str, reader: str, visits: int = 3) -> Iterator[Request]:
    """Yields what somebody did in the days before, by which they are known."""
    for at in sorted(-world.chance.uniform(0.3, 6) * DAY for _ in range(visits)):
        yield requests.sign_in(at, client, account, reader)
        yield requests.read(at + 10, client, account, article(world), reader)
        yield requests.read(at + 70, client, account, article(world), reader)


def served(world: World, client: Client, account: str, key: str, number: int = 40) -> Iterator[Request]:
    """Yields what a publisher's server asked in the days before."""
    for at in sorted(-world.chance.uniform(0.1, 6) * DAY for _ in range(number)):
        route = world.chance.choice(("/v1/subscriptions", "/v1/subscribers/{id}"))
        yield requests.of_server(at, client, account, key, "GET", route, target=world.name("subj"))


def _signs_in(world: World, at: float, client: Client, account: str, reader: str, typo: float) -> Iterator[Request]:
    while world.chance.random() < typo:
        yield requests.sign_in(at, client, account, reader, "wrong")
        at += 4 + world.pause(8)
    yield requests.sign_in(at, client, account, reader)


def _reader(world: World, client: Client, *, begins: float, typo: float = 0.12, most: int = 20) -> Behaviour:
    account, reader = world.chance.choice(world.accounts), world.name("subj")
    if world.chance.random() < 0.6:
        yield from past(world, client, account, reader)
    at = begins
    if world.chance.random() < 0.4:
        for request in _signs_in(world, at, client, account, reader, typo):
            at = request.at
            yield request
    signed_in = world.chance.random() < 0.6
    for request in reading(
        world, at + 2, client, account, reader if signed_in else "", world.chance.randrange(1, most)
    ):
        at = request.at
        yield request
    if signed_in and world.chance.random() < 0.05:
        yield requests.pay(at + 30, client, account, reader, world.name("card"), good=world.chance.random() > 0.1)


def reader(world: World) -> Actor:
    """Somebody at home, now and then with a password mistyped."""
    return Actor(world.name("reader"), "reader", _reader(world, world.home(), begins=world.start()))


def _shared(
    world: World, people: int, address: str, place: Place, kind: str, spread: float, typo: float
) -> list[Actor]:
    begins = world.start(0.6)
    members = []
    for _ in range(people):
        client = replace(world.home(), address=address, place=place)
        at = begins + world.chance.uniform(0, spread)
        members.append(Actor(world.name(kind), kind, _reader(world, client, begins=at, typo=typo), hard=True))
    return members


def office(world: World) -> list[Actor]:
    """A hundred and more people behind one address, who come in at nine."""
    place = world.chance.choice(HOME_PLACES)
    return _shared(world, world.chance.randrange(80, 160), world.address(place), place, "office", 0.5 * HOUR, 0.2)


def carrier(world: World) -> list[Actor]:
    """A mobile provider's address: hundreds of telephones, all day."""
    place = world.chance.choice(PLACES)
    return _shared(world, world.chance.randrange(150, 300), world.address(place), place, "carrier", 6 * HOUR, 0.15)


def _password_manager(world: World) -> Behaviour:
    account, reader_, client = world.chance.choice(world.accounts), world.name("subj"), world.home()
    yield from past(world, client, account, reader_)
    at = world.start()
    for _ in range(world.chance.randrange(2, 5)):
        # The form is posted twice at once, with the password of before.
        yield requests.sign_in(at, client, account, reader_, "wrong")
        yield requests.sign_in(at + 0.2, client, account, reader_, "wrong")
        at += 2 + world.pause(5)
    yield requests.sign_in(at + 5, client, account, reader_)
    yield from reading(world, at + 8, client, account, reader_, 5)


def _forgetful(world: World) -> Behaviour:
    account, reader_, client = world.chance.choice(world.accounts), world.name("subj"), world.home()
    yield from past(world, client, account, reader_, 1)
    at = world.start()
    for _ in range(world.chance.randrange(5, 9)):
        yield requests.sign_in(at, client, account, reader_, "wrong")
        at += 6 + world.pause(10)
    key = requests.site_key(account)
    yield Request(at, client, account, "POST", "/v1/password_resets", requests.PUBLISHABLE, key, status=202)
    yield requests.sign_in(at + 120, client, account, reader_)
    yield from reading(world, at + 125, client, account, reader_, 4)


def _traveller(world: World) -> Behaviour:
    account, reader_, client = world.chance.choice(world.accounts), world.name("subj"), world.home()
    yield from past(world, client, account, reader_)
    at = world.start(0.1)
    yield requests.sign_in(at, client, account, reader_)
    yield from reading(world, at + 5, client, account, reader_, 6)
    # Asleep in the aeroplane for as long as it takes; or a private network's exit that is switched on.
    far = elsewhere(world, client)
    distance = abs(far.place.longitude - client.place.longitude) + abs(far.place.latitude - client.place.latitude)
    at += max(1.0, distance / 8) * HOUR
    yield requests.sign_in(at, far, account, reader_)
    yield from reading(world, at + 5, far, account, reader_, 6)


def _tunnel(world: World) -> Behaviour:
    # A private network that is switched on and off: another country within a minute, the same browser.
    account, reader_, client = world.chance.choice(world.accounts), world.name("subj"), world.home()
    yield from past(world, client, account, reader_)
    at = world.start(0.5)
    yield requests.sign_in(at, client, account, reader_)
    exits = [client, elsewhere(world, client, HOME_PLACES), client]
    for stop in exits:
        yield from reading(world, at + 60, stop, account, reader_, 4)
        at += 20 * 60


def _family(world: World) -> Behaviour:
    account, reader_ = world.chance.choice(world.accounts), world.name("subj")
    home = world.home()
    devices = [
        replace(world.home(), address=home.address, place=home.place) for _ in range(world.chance.randrange(2, 6))
    ]
    devices.append(elsewhere(world, devices[0], (home.place,)))
    for device in devices:
        yield from past(world, device, account, reader_, 1)
    at = world.start(0.2)
    for _ in range(world.chance.randrange(15, 40)):
        yield requests.read(at, world.chance.choice(devices), account, article(world), reader_)
        at += world.pause(600)


def _retry_storm(world: World) -> Behaviour:
    # An app that asks again at once for what is not there, for minutes.
    account, client = world.chance.choice(world.accounts), world.server("NewsApp/3.2 okhttp/4.12.0")
    key, missing = world.name("key"), world.name("subj")
    yield from served(world, client, account, key)
    at = world.start(0.7)
    for _ in range(world.chance.randrange(600, 1500)):
        yield requests.of_server(
            at,
            client,
            account,
            key,
            "GET",
            "/v1/subscribers/{id}",
            target=missing,
            status=404,
            reason="subscriber_unknown",
        )
        at += 0.1 + world.pause(0.1)


def _stale_tokens(world: World) -> Behaviour:
    account, client = world.chance.choice(world.accounts), world.home()
    at = world.start(0.8)
    for _ in range(world.chance.randrange(60, 200)):
        yield Request(
            at, client, account, "GET", "/v1/me", requests.ANONYMOUS, status=401, reason="access_token_expired"
        )
        at += 0.5 + world.pause(1)


def _sync(world: World) -> Behaviour:
    # A publisher's nightly job, which reads every subscriber of its own.
    account, client, key = world.chance.choice(world.accounts), world.server("acme-sync/1.4"), world.name("key")
    yield from served(world, client, account, key)
    at = world.start(0.3)
    for number in range(world.chance.randrange(1500, 3000)):
        gone = world.chance.random() < 0.01
        yield requests.of_server(
            at,
            client,
            account,
            key,
            "GET",
            "/v1/subscribers/{id}",
            target=f"{key}/{number}",
            status=404 if gone else 200,
            reason="subscriber_unknown" if gone else "",
        )
        at += 0.2 + world.pause(0.5)


def _probe(world: World) -> Behaviour:
    account, client = world.chance.choice(world.accounts), world.server("uptime-probe/2.0")
    at = world.pause(10)
    while at < world.seconds:
        yield requests.offers(at, client, account)
        at += 20


def _crawler(world: World) -> Behaviour:
    account = world.chance.choice(world.accounts)
    client = world.server("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)")
    at = world.start(0.3)
    for number in range(world.chance.randrange(1500, 3000)):
        page = requests.read(at, client, account, f"art_{number % ARTICLES}")
        yield replace(page, verified_crawler=True)
        at += 0.4 + world.pause(1)


def _card_trouble(world: World) -> Behaviour:
    account, reader_, client = world.chance.choice(world.accounts), world.name("subj"), world.home()
    cards = [world.name("card") for _ in range(2)]
    at = world.start()
    yield requests.sign_in(at, client, account, reader_)
    for number in range(world.chance.randrange(2, 5)):
        at += 20 + world.pause(30)
        yield requests.pay(at, client, account, reader_, cards[number // 2 % 2], good=False)
    yield requests.pay(at + 60, client, account, reader_, cards[1], good=True)


def flash_sale(world: World) -> list[Actor]:
    """Hundreds who buy within minutes, some with a code mistyped, some with a card declined."""
    account, begins = world.chance.choice(world.accounts), world.start(0.7)

    def buys(at: float) -> Behaviour:
        reader_, client = world.name("subj"), world.home()
        yield requests.offers(at, client, account)
        yield requests.register(at + 30, client, account, reader_)
        for _ in range(world.chance.choice((0, 0, 0, 1, 1, 2, 3))):
            at += 8
            yield requests.code(at + 40, client, account, world.name("typo"), good=False, reader=reader_)
        yield requests.code(at + 55, client, account, "SUMMER", good=True, reader=reader_)
        while world.chance.random() < 0.12:
            at += 20
            yield requests.pay(at + 60, client, account, reader_, world.name("card"), good=False)
        yield requests.pay(at + 90, client, account, reader_, world.name("card"), good=True)

    return [
        Actor(world.name("sale"), "flash sale", buys(begins + world.chance.uniform(0, 600)), hard=True)
        for _ in range(world.chance.randrange(150, 300))
    ]


def newsletter(world: World) -> list[Actor]:
    """Everybody opens the same article within minutes."""
    account, begins = world.chance.choice(world.accounts), world.start(0.8)

    def opens(at: float) -> Behaviour:
        yield from reading(world, at, world.home(), account, "", 1 + (world.chance.random() < 0.3))

    return [
        Actor(world.name("newsletter"), "newsletter", opens(begins + world.pause(300)), hard=True)
        for _ in range(world.chance.randrange(200, 400))
    ]


def _regular(world: World) -> Behaviour:
    # Reads all day, much, by the same browser: a subscriber who is worth having.
    account, reader_, client = world.chance.choice(world.accounts), world.name("subj"), world.home()
    yield from past(world, client, account, reader_, 5)
    at = world.start(0.1)
    yield requests.sign_in(at, client, account, reader_)
    yield from reading(world, at + 5, client, account, reader_, world.chance.randrange(60, 160))


def _support(world: World) -> Behaviour:
    # Staff who look up one reader after the other.
    account, client, person = world.chance.choice(world.accounts), world.home(), world.name("per")
    at = world.start(0.2)
    for _ in range(world.chance.randrange(60, 150)):
        yield Request(
            at,
            client,
            account,
            "GET",
            "/v1/subscribers/{id}",
            requests.STAFF,
            person,
            session=f"ses_{person}",
            target=world.name("subj"),
        )
        at += 10 + world.pause(60)


_SINGLE = {
    "password manager": (_password_manager, 25),
    "forgetful": (_forgetful, 20),
    "traveller": (_traveller, 20),
    "tunnel": (_tunnel, 15),
    "family": (_family, 25),
    "retry storm": (_retry_storm, 2),
    "stale tokens": (_stale_tokens, 8),
    "sync": (_sync, 2),
    "probe": (_probe, 2),
    "crawler": (_crawler, 2),
    "card trouble": (_card_trouble, 15),
    "regular": (_regular, 15),
    "support": (_support, 4),
}


def population(world: World, readers: int = 900) -> list[Actor]:
    """Returns everybody honest."""
    actors = [reader(world) for _ in range(readers)]
    for kind, (behave, number) in _SINGLE.items():
        for _ in range(number):
            solves = 0.0 if kind in {"retry storm", "sync", "probe", "crawler"} else 0.97
            actors.append(Actor(world.name("honest"), kind, behave(world), hard=True, solves=solves))
    for crowd in (office, office, carrier, flash_sale, newsletter):
        actors += crowd(world)
    return actors


__all__ = ["Answer", "article", "population", "reading"]
