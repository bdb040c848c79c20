"""Owns the counters of attempts in Valkey: one script call decides on all buckets of an attempt."""

import importlib.resources
from collections.abc import Sequence

from libs.redis_client import Store
from services.auth.domain.attempts import Bucket

_PREFIX = "gatefold:{attempts}:"
"""One hash slot: a decision spans the buckets of a principal and of an address."""
CHALLENGE_KEY = _PREFIX + "challenge"
"""Exists while somebody tries passwords on many accounts; the edge may read it."""


class AttemptStore:
    """Raises `unavailable("store_unavailable")` when the store is away."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._script = store.register_script(_source("attempts.lua"))
        self._release = store.register_script(_source("attempt_release.lua"))

    async def claim(self, buckets: Sequence[Bucket], now: int) -> tuple[int, int]:
        """Counts an attempt in all buckets and returns 0, or in none and returns the milliseconds to wait; and how many
        the first holds then.
        """
        return await self._run(buckets, now, 1)

    async def give_back(self, buckets: Sequence[Bucket], now: int) -> None:
        """Takes an attempt out of buckets."""
        await self._run(buckets, now, -1)

    async def empty(self, bucket: Bucket) -> None:
        """Empties one bucket."""
        await self._store.hdel(_name(bucket.key), bucket.field)

    async def release(self, key: bytes, now: int, most: int) -> bool:
        """Ends the waits of a key's buckets, and keeps the counts; tells whether any is full and stays shut."""
        return int(await self._release(keys=[_name(key)], args=[now, most])) > 0

    async def forget(self, key: bytes) -> None:
        """Empties all buckets of a key."""
        await self._store.delete(_name(key))

    async def count_failure(self, principal: bytes, network: bytes, window: int, seconds: int) -> tuple[int, int, int]:
        """Counts a wrong password in this window of time.

        Returns how many there were, on how many accounts, and on how many from this network (HyperLogLog, ± 1 %).
        """
        total, wide = f"{_PREFIX}failures:{window}", f"{_PREFIX}accounts:{window}"
        near = f"{_PREFIX}network:{window}:{network.hex()}"
        pipe = self._store.pipeline(transaction=False)
        pipe.incr(total)
        pipe.pfadd(wide, principal)
        pipe.pfadd(near, principal)
        pipe.pfcount(wide)
        pipe.pfcount(near)
        for key in (total, wide, near):
            pipe.expire(key, 2 * seconds)
        answers = await pipe.execute()
        return int(answers[0]), int(answers[3]), int(answers[4])

    async def raise_challenge(self, seconds: int) -> None:
        """Says for a while that passwords are being tried on many accounts."""
        await self._store.set(CHALLENGE_KEY, b"1", ex=seconds)

    async def _run(self, buckets: Sequence[Bucket], now: int, step: int) -> tuple[int, int]:
        arguments: list[str | int] = [now, step]
        for bucket in buckets:
            rule = bucket.rule
            arguments += [bucket.field, rule.free, rule.most, rule.first_wait, rule.longest_wait, rule.forget]
        wait, tries = await self._script(keys=[_name(bucket.key) for bucket in buckets], args=arguments)
        return int(wait), int(tries)


def _source(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _name(key: bytes) -> str:
    return _PREFIX + key.hex()
