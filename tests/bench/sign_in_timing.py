"""How long a refused sign-in takes for an address nobody has, one with another password, one hashed at a lower cost."""

import statistics
import time
from collections.abc import Awaitable, Callable

from gatefold.auth.v1 import session_pb2, subscriber_session_pb2

from libs import caller
from libs.errors import GatefoldError
from tests.bench.harness import Bench
from tests.support.auth_process import auth_stack

TRIES = 200
COST, LOWER = 10, 8
"""At the lower of the two profiles all that is not hashing weighs four times what it does at the other."""
WITHIN = 1.05

Refused = Callable[[str], Awaitable[None]]


async def measure(bench: Bench) -> None:
    """Medians of 200 tries, interleaved: each address is tried once, so that nobody has to wait."""
    async with auth_stack(0, {"GATEFOLD_BCRYPT_COST": str(COST)}) as stack:
        house = stack.house
        account = (await house.publisher()).live

        async def reader(email: str) -> None:
            request = subscriber_session_pb2.SignInRequest(email=email, password="wrong horse battery")
            with caller.acting(house.page(account)):
                await house.readers.SignIn(request, timeout=30)

        async def person(email: str) -> None:
            request = session_pb2.SignInStaffRequest(email=email, password="wrong horse battery")
            with caller.acting(house.anonymous()):
                await house.sessions.SignInStaff(request, timeout=30)

        unknown = [house.fresh("nobody") for _ in range(TRIES)]
        readers = {
            "known": await stack.add_readers(account, TRIES, cost=COST),
            "lower-cost": await stack.add_readers(account, TRIES, cost=LOWER),
        }
        people = {
            "known": await stack.add_people(TRIES, cost=COST),
            "lower-cost": await stack.add_people(TRIES, cost=LOWER),
        }
        await _compare(bench, "reader", reader, unknown, readers)
        await _compare(bench, "staff", person, unknown, people)


async def _compare(bench: Bench, whom: str, sign_in: Refused, unknown: list[str], known: dict[str, list[str]]) -> None:
    addresses = {"unknown": unknown, **known}
    seconds: dict[str, list[float]] = {name: [] for name in addresses}
    for number in range(TRIES):
        names = list(addresses)
        # Another one begins each time, so that what comes before falls on all alike.
        for name in (*names[number % len(names) :], *names[: number % len(names)]):
            began = time.perf_counter()
            try:
                await sign_in(addresses[name][number])
            except GatefoldError as error:
                seconds[name].append(time.perf_counter() - began)
                if error.reason != "credentials_invalid":
                    raise
    medians = {name: statistics.median(series) for name, series in seconds.items()}
    for name in known:
        ours, theirs = medians[name] * 1000, medians["unknown"] * 1000
        bench.add(
            f"sign-in-timing-{whom}-{name}",
            (ours, theirs, "ms"),
            named="an address that nobody has; the greater median over the smaller",
            ratio=max(ours / theirs, theirs / ours),
            goal=WITHIN,
            higher_is_better=False,
            runs=TRIES,
        )
