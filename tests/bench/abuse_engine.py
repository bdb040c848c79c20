"""Measures the abuse engine: events a second with the whole catalogue, and its memory under ten million addresses."""

import random
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from multiprocessing import get_context

from gatefold.activity.v1 import activity_pb2

from services.abuse.engine.catalogue import Catalogue
from services.abuse.engine.engine import Engine
from services.abuse.usecases.watch import read
from tests.bench.harness import Bench

BATCH = 4096
BATCHES = 40
RUNS = 5
EVENTS_A_SECOND = 150_000
ADDRESSES = 10_000_000
EVERYTHING_NEW = 500_000
MEGABYTES = 1000
BEGIN = 1_790_000_000
ACCOUNTS, PEOPLE, ADDRESSES_OF_PEOPLE, KEYS_OF_SERVERS = 50, 20_000, 15_000, 200
# What publications see, about: mostly reading, some signing in, little else.
KINDS = ("", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "meter.read", "sign_in.password")
RARE = ("payment.attempt", "coupon.attempt", "gift.attempt", "trial.started", "refund.requested")


async def measure(bench: Bench) -> None:
    """Measures both; memory in a process of its own, since a process never shrinks."""
    batches = list(traffic(random.Random(1)))
    rates = []
    engine = Engine(Catalogue.load())
    for _ in range(RUNS + 1):
        # Bytes in, findings out: reading the messages counts. The first round is not counted: memory is being given.
        began = time.process_time()
        for packed in batches:
            engine.feed(read([(0, packed)]).activities)
        rates.append(BATCHES * BATCH / (time.process_time() - began))
    bench.add(
        "abuse-engine",
        (statistics.median(rates[1:]), EVENTS_A_SECOND, "/s"),
        named="150,000 events/s of one core, whole catalogue",
        goal=1.0,
        runs=RUNS,
        tenants=ACCOUNTS,
    )
    with get_context("spawn").Pool(1) as pool:
        megabytes = pool.apply(flooded)
    bench.add(
        "abuse-engine-memory",
        (megabytes, MEGABYTES, "MB"),
        named="1 GB under ten million distinct addresses",
        goal=1.0,
        higher_is_better=False,
    )


def traffic(chance: random.Random) -> Iterator[bytes]:
    """Yields packed batches of ordinary traffic."""
    people = [chance.randbytes(16) for _ in range(PEOPLE)]
    addresses = [chance.randbytes(16) for _ in range(ADDRESSES_OF_PEOPLE)]
    agents = [chance.randbytes(16) for _ in range(300)]
    pages = [chance.randbytes(16) for _ in range(5_000)]
    for number in range(BATCHES):
        batch = activity_pb2.ActivityBatch()
        for at in range(BATCH):
            caller = chance.choice(("SUBSCRIBER", "SUBSCRIBER", "ANONYMOUS", "SECRET_KEY"))
            who = chance.randrange(KEYS_OF_SERVERS if caller == "SECRET_KEY" else PEOPLE)
            kind = chance.choice(KINDS) if chance.random() > 0.01 else chance.choice(RARE)
            activity = batch.activities.add(
                account_id=f"acct_{who % ACCOUNTS:026}",
                http_request_method="GET" if chance.random() < 0.85 else "POST",
                http_route="/v1/access" if chance.random() < 0.7 else "/v1/me",
                http_response_status_code=200 if chance.random() < 0.93 else chance.choice((401, 403, 404)),
                client_address_hash=addresses[who % ADDRESSES_OF_PEOPLE],
                client_network_hash=addresses[who % 5_000],
                user_agent_hash=agents[who % 300],
                caller_kind=caller,
                actor_hash=people[who],
                duration_micros=chance.randrange(100_000),
                request_id=f"req_{number * BATCH + at:026}",
                event_name=kind,
                target_hash=people[who] if kind == "sign_in.password" else chance.choice(pages),
                device_hash=people[who][::-1],
                geo_country_iso_code="DE",
            )
            activity.time.seconds = BEGIN + number
            activity.time.nanos = at * 200_000
        yield batch.SerializeToString()


def flooded() -> float:
    """Returns the megabytes that a process with an engine takes after ten million addresses.

    The first half million come with readers, devices and wrong passwords that are new as well, so that all tables are
    full; the others ask for a page each.
    """
    engine = Engine(Catalogue.load())
    packed = next(traffic(random.Random(2)))
    # The messages are used anew; only their hashes change.
    activities = list(activity_pb2.ActivityBatch.FromString(packed).activities)
    events = ("sign_in.password", "", "payment.attempt", "coupon.attempt", "meter.read", "trial.started", "")
    chance = random.Random(3)
    for number in range(ADDRESSES // BATCH + 1):
        hashes = chance.randbytes(16 * BATCH)
        everything = number * BATCH < EVERYTHING_NEW
        for at, activity in enumerate(activities):
            own = hashes[16 * at : 16 * at + 16]
            activity.client_address_hash = own
            if everything:
                activity.caller_kind, activity.event_name = "SUBSCRIBER", events[at % len(events)]
                activity.client_network_hash = activity.device_hash = activity.user_agent_hash = own
                activity.actor_hash = activity.target_hash = own
            else:
                activity.ClearField("actor_hash")
                activity.ClearField("event_name")
            activity.time.seconds = BEGIN + number
        engine.feed(activities)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform != "darwin" else peak / 1024 / 1024
