"""Owns activities: what the abuse service is told of requests and security events, in batches nobody waits for."""

import asyncio
import hmac
import ipaddress
import re
import zlib
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from gatefold.activity.v1 import activity_pb2
from redis.exceptions import RedisError

from libs.errors import GatefoldError
from libs.events.pause import pause
from libs.redis_client import Store
from libs.telemetry import Telemetry

SHARDS = 8
"""An account's activities all go to one of so many streams, so that whoever reads that one sees all of them."""
FIELD = b"batch"
MOST_HELD = 20_000
MOST_IN_BATCH = 512
LONGEST_STREAM = 2_000
"""Entries of one shard, about a million activities."""
EVERY_SECONDS = 0.1
HASH_BYTES = 16
USER_AGENT_LENGTH = 300
"""So much of a User-Agent header is hashed."""
_MOST_HASHES = 32_768
_VERSION = re.compile(r"[0-9][0-9._]*")
_LONGEST_REMEMBERED = 300
PEOPLE = ("SUBSCRIBER", "STAFF")
"""Kinds of callers who are met somewhere when they are let in."""
_MET_SECONDS = 8 * 3600
"""Somebody is known where they were met on two days (services/abuse/engine/acquaintance.py)."""
_MOST_MET = 65_536


def stream_of(shard: int) -> str:
    """Returns the stream of a shard."""
    return f"gatefold:activity:{shard}"


def shard_of(activity: activity_pb2.Activity) -> int:
    """Returns the shard that an activity belongs to: its account's, and its network's where no account is known."""
    return shard_at(activity.account_id.encode() or activity.client_network_hash)


def shard_at(key: bytes) -> int:
    """Returns the shard of an account, as text, or of a network, as its hash."""
    return zlib.crc32(key) % SHARDS


class Routing:
    """Says which shards are told of an activity.

    An account's shard sees all of an account, and nothing of what the same address does elsewhere. So what happened
    inside (a password that was tried, a payment) is told to the shard of its network as well, for the platform alone.
    Requests are too many for that; of them it is told who is met where, which keeps a block from hitting them.
    """

    def __init__(self) -> None:
        self._met: OrderedDict[tuple[bytes, bytes], int] = OrderedDict()

    def places(self, activity: activity_pb2.Activity) -> list[tuple[int, activity_pb2.Activity]]:
        """Returns shards with what each is told; the activity itself is marked."""
        home, network = shard_of(activity), activity.client_network_hash
        if not ((activity.event_name or self._is_news(activity)) and network and activity.account_id):
            return [(home, activity)]
        around = shard_at(network)
        if around == home:
            return [(home, activity)]
        told = activity_pb2.Activity()
        told.CopyFrom(activity)
        told.reach = activity_pb2.Activity.REACH_PLATFORM
        if activity.event_name:
            activity.reach = activity_pb2.Activity.REACH_ACCOUNT
        return [(home, activity), (around, told)]

    def meets(self, somebody: tuple[bytes, bytes], now: int) -> bool:
        """Tells whether somebody of PEOPLE, by hashes of the actor and of the address, was not met there for a while
        before `now`, in seconds of the epoch.
        """
        met = self._met.get(somebody)
        if met is not None and now - met < _MET_SECONDS:
            return False
        self._met[somebody] = now
        self._met.move_to_end(somebody)
        if len(self._met) > _MOST_MET:
            self._met.popitem(last=False)
        return True

    def _is_news(self, activity: activity_pb2.Activity) -> bool:
        if activity.caller_kind not in PEOPLE or not 200 <= activity.http_response_status_code < 300:
            return False
        return self.meets((activity.actor_hash, activity.client_address_hash), activity.time.seconds)


def network_of(address: str) -> str:
    """Returns the /24 or /48 around an address; empty when it is none."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    return str(ipaddress.ip_network((parsed, 24 if parsed.version == 4 else 48), strict=False))


@lru_cache(_MOST_HASHES)
def device_of(actor: str, user_agent: str) -> str:
    """Returns what stands for a device of somebody who is signed in, as far as requests tell: the program, whatever its
    version, so that an update makes no new one. Two alike of one person are one; those of two persons never are.
    `user_agent` is cut to USER_AGENT_LENGTH.
    """
    return f"{actor} {_VERSION.sub('', user_agent)}" if actor and user_agent else ""


class Pseudonyms:
    """Hashes what activities and verdicts are about, alike in every service that has the pepper of API keys."""

    def __init__(self, pepper: str) -> None:
        kdf = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"gatefold/activity")
        self._key = kdf.derive(pepper.encode())
        # The same clients come again and again, and a hash costs more than all the rest of an activity's field.
        self._remembered = lru_cache(_MOST_HASHES)(self._hashed)

    def of(self, kind: str, text: str) -> bytes:
        """Returns the keyed hash of a text of a kind (`address`, `network`, `user_agent`, `actor`, `target`, `device`,
        `session`); empty for an empty text.
        """
        if not text:
            return b""
        return self._remembered(kind, text) if len(text) <= _LONGEST_REMEMBERED else self._hashed(kind, text)

    def _hashed(self, kind: str, text: str) -> bytes:
        # What a client sends may be no text at all; it must be told apart, and never be a fault of ours.
        return hmac.digest(self._key, f"{kind}:{text}".encode("utf-8", "surrogatepass"), "sha256")[:HASH_BYTES]


class ActivityStream:
    """Holds what is to be sent, up to a bound; what does not fit, and what the store did not take, is counted."""

    def __init__(self, store: Store, telemetry: Telemetry) -> None:
        self._store = store
        self.routing = Routing()
        """Which shards are told of what."""
        self._held: deque[tuple[int, bytes]] = deque()
        self._lost: dict[int, int] = defaultdict(int)
        self._lost_total = telemetry.counter("activities_lost", "Activities that the abuse service never sees.")

    def record(self, activity: activity_pb2.Activity) -> None:
        """Takes an activity to be sent; returns at once."""
        for shard, told in self.routing.places(activity):
            self.tell(shard, told.SerializeToString())

    def tell(self, shard: int, packed: bytes) -> None:
        """Takes a serialised activity to be sent to one shard; returns at once."""
        if len(self._held) >= MOST_HELD:
            self._lose(shard, 1)
        else:
            self._held.append((shard, packed))

    async def flush(self) -> bool:
        """Sends one batch to each shard that is told something; one that the store does not take is lost, and the
        shard's next says how many were. Returns whether the store took all.
        """
        sharded: dict[int, list[bytes]] = defaultdict(list)
        for _ in range(min(len(self._held), MOST_IN_BATCH)):
            shard, packed = self._held.popleft()
            sharded[shard].append(packed)
        lost = {shard: self._lost.pop(shard, 0) for shard in sharded}
        batches = {shard: batch_of(several, lost[shard]) for shard, several in sharded.items()}
        taken = True
        for (shard, several), answer in zip(sharded.items(), await self._send(batches), strict=True):
            if isinstance(answer, Exception):
                self._lost[shard] += lost[shard]
                self._lose(shard, len(several))
                taken = False
        return taken

    async def run(self, stop: asyncio.Event) -> None:
        """Sends until `stop` is set, and then what is left."""
        while not stop.is_set():
            await self.flush()
            if len(self._held) < MOST_IN_BATCH:
                await pause(stop, EVERY_SECONDS)
        await self.close()

    async def close(self) -> None:
        """Sends what is left, also of what was recorded after `run`; a store that is away is not waited for twice."""
        while self._held and await self.flush():
            pass
        for shard, _ in self._held:
            self._lose(shard, 1)
        self._held.clear()

    async def _send(self, batches: Mapping[int, bytes]) -> list[Any]:
        """Sends all in one go, and returns an answer for each, which may be an exception."""
        if not batches:
            return []
        together = self._store.pipeline(transaction=False)
        for shard, batch in batches.items():
            entry: dict[Any, Any] = {FIELD: batch}
            together.xadd(stream_of(shard), entry, maxlen=LONGEST_STREAM, approximate=True)
        try:
            return await together.execute(raise_on_error=False)
        except (GatefoldError, RedisError, OSError) as error:
            return [error] * len(batches)

    def _lose(self, shard: int, number: int) -> None:
        self._lost[shard] += number
        self._lost_total.inc(number)


def batch_of(packed: Iterable[bytes], lost: int = 0) -> bytes:
    """Returns serialised activities as a serialised ActivityBatch.

    Each has its fields in the order of their numbers then, whatever parts it was put together from: whoever reads
    thousands at a time counts on that.
    """
    batch = activity_pb2.ActivityBatch(lost=lost)
    for one in packed:
        batch.activities.add().MergeFromString(one)
    return batch.SerializeToString()
