"""Owns hashing passwords: off the event loop, behind a bounded queue, with the same work for every failure."""

import asyncio
import base64
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import bcrypt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from libs import errors
from libs.errors import GatefoldError, Kind
from services.auth.domain import foreign_hash
from services.auth.domain import password as rules
from services.auth.domain.password import NO_PASSWORD, SCHEME, StoredPassword
from services.auth.usecases import foreign_hashes

T = TypeVar("T")

_NICENESS = 5
_LEAST_PRIORITY = 19


@dataclass(frozen=True)
class Verdict:
    """Whether a password was right, and whether its hash is to be made anew (cost or pepper have changed)."""

    matches: bool
    stale: bool


@dataclass
class Place:
    """A place in the queue that is kept for one password."""

    used: bool = False


class WorkMeter:
    """Counts work units: a bcrypt run of cost c is 2^c. Tests assert on it; wall-clock time belongs to the bench."""

    def __init__(self, observe: Callable[[int], None] | None = None) -> None:
        self._lock = threading.Lock()
        self._observe = observe
        self.units = 0

    def add(self, units: int) -> None:
        """Counts; called from the pool's threads."""
        with self._lock:
            self.units += units
        if self._observe is not None:
            self._observe(units)


class PasswordHasher:
    """Hashes and verifies. bcrypt releases the GIL, so threads use the cores; more would only wait."""

    def __init__(
        self, peppers: Mapping[str, bytes], *, cost: int, highest_cost: int, cores: int, queue: int, meter: WorkMeter
    ) -> None:
        self._peppers = dict(peppers)
        self._pepper_id = next(iter(self._peppers))
        self._cost = cost
        self._target = max(cost, highest_cost)
        self._pool = ThreadPoolExecutor(cores, thread_name_prefix="bcrypt", initializer=_step_back)
        self._room = cores + queue
        self._lock = threading.Lock()
        self._taken = 0
        self._meter = meter

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Keeps a place for a password of whoever has proven nothing, before anybody is looked up for them.

        So that too many cost nothing but their refusal: raises `unavailable("password_queue_full")`.
        """
        self._take()
        place = Place()
        try:
            yield place
        finally:
            if not place.used:
                self._free()

    async def hash(self, password: str, place: Place | None = None) -> StoredPassword:
        """Returns a new hash; raises `unavailable("password_queue_full")` when too many wait."""
        return await self._run(lambda: self._hash(password), place)

    async def verify(self, password: str, stored: StoredPassword | None, place: Place | None = None) -> Verdict:
        """Checks a password against what is stored, or against nothing when nobody has the address.

        Every failure costs the same work: a dummy run where nothing is stored, and further runs where the stored cost
        is lower. Raises `unavailable("password_queue_full")` when too many wait.
        """
        return await self._run(lambda: self._verify(password, stored), place)

    def keep(self, text: str) -> StoredPassword:
        """Returns another system's hash as it is stored: sealed with the pepper, so that a dump alone gives no start.

        Raises `invalid("hash_unknown")`, and `invalid("hash_too_costly")` also for one that takes more work than any
        other failure: who has it could be told by that (`bcrypt_highest_cost` raises all).
        """
        read = foreign_hash.parse(text)
        if read.units > rules.work(self._target):
            raise foreign_hash.too_costly()
        sealed = self._sealing(self._pepper_id).encrypt(read.text.encode(), [read.scheme.encode()])
        return StoredPassword(read.scheme, read.params, self._pepper_id, base64.b64encode(sealed).decode())

    async def rehash(self, password: str) -> StoredPassword | None:
        """Returns a new hash of a password that was right; None when too many wait, since nothing depends on it."""
        try:
            return await self.hash(password)
        except GatefoldError as error:
            if error.kind is Kind.UNAVAILABLE:
                return None
            raise

    def is_stale(self, scheme: str, params: str, pepper_id: str) -> bool:
        """Tells whether what is hashed so is hashed anew at the next sign-in."""
        return scheme != NO_PASSWORD.scheme and (scheme, params, pepper_id) != (
            SCHEME,
            str(self._cost),
            self._pepper_id,
        )

    def close(self) -> None:
        """Lets running hashes end and drops waiting ones."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _hash(self, password: str) -> StoredPassword:
        raw = rules.material(password, self._peppers[self._pepper_id])
        digest = bcrypt.hashpw(raw, bcrypt.gensalt(self._cost))
        self._meter.add(rules.work(self._cost))
        return StoredPassword(SCHEME, str(self._cost), self._pepper_id, digest.decode())

    def _verify(self, password: str, stored: StoredPassword | None) -> Verdict:
        if stored is not None and stored.scheme in foreign_hash.SCHEMES and stored.pepper_id in self._peppers:
            return self._verify_foreign(password, stored)
        pepper = self._peppers.get(stored.pepper_id) if stored is not None and stored.scheme == SCHEME else None
        if stored is None or pepper is None:
            # Nobody has the address, or the pepper is gone: work as if, from the spelling on.
            rules.material(password, self._peppers[self._pepper_id])
            self._work_off([self._target])
            return Verdict(matches=False, stale=False)
        matches = bcrypt.checkpw(rules.material(password, pepper), stored.hash.encode())
        self._meter.add(rules.work(stored.cost))
        if not matches:
            self._work_off(rules.topping_up(stored.cost, self._target))
        return Verdict(matches, stale=stored.cost != self._cost or stored.pepper_id != self._pepper_id)

    def _verify_foreign(self, password: str, stored: StoredPassword) -> Verdict:
        sealed = base64.b64decode(stored.hash)
        read = foreign_hash.parse(self._sealing(stored.pepper_id).decrypt(sealed, [stored.scheme.encode()]).decode())
        matches = foreign_hashes.matches(password, read)
        self._meter.add(read.units)
        if not matches:
            self._work_off(foreign_hash.remaining(read.units, rules.work(self._target)))
        return Verdict(matches, stale=True)

    def _sealing(self, pepper_id: str) -> AESSIV:
        # Deterministic, and made for it (RFC 5297): the hash is salted, so nothing repeats.
        derived = HKDF(algorithm=hashes.SHA512(), length=64, salt=None, info=b"gatefold/auth/foreign_hash")
        return AESSIV(derived.derive(self._peppers[pepper_id]))

    def _work_off(self, costs: list[int]) -> None:
        for cost in costs:
            bcrypt.hashpw(b"nobody's password", bcrypt.gensalt(cost))
            self._meter.add(rules.work(cost))

    async def _run(self, job: Callable[[], T], place: Place | None) -> T:
        if place is None or place.used:
            self._take()
        else:
            place.used = True
        future = self._pool.submit(job)
        # The place is free when the thread is done, however early the caller went away.
        future.add_done_callback(self._free)
        return await asyncio.wrap_future(future)

    def _take(self) -> None:
        with self._lock:
            if self._taken >= self._room:
                raise errors.unavailable("password_queue_full", "Too many people sign in at once; try again.", 1)
            self._taken += 1

    def _free(self, _: Future[T] | None = None) -> None:
        with self._lock:
            self._taken -= 1


def _step_back() -> None:
    """Lets a thread of the pool wait for the event loop and the stores, so that health and refusals come at once."""
    # Elsewhere a priority is the whole process's.
    if sys.platform == "linux":
        thread = threading.get_native_id()
        # Where that is forbidden, hashing goes on as it would.
        with suppress(OSError):
            lower = min(os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS, _LEAST_PRIORITY)
            os.setpriority(os.PRIO_PROCESS, thread, lower)
