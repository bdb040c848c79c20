"""The cache of unwrapped keys: bounded in number and time."""

from datetime import timedelta

from libs.clock import FixedClock
from libs.vault.cache import KeyCache


def a_cache(clock: FixedClock, size: int = 2) -> KeyCache[str, int]:
    return KeyCache(clock, size=size, lifetime=timedelta(minutes=5))


def test_a_key_is_held_for_less_than_its_lifetime() -> None:
    clock = FixedClock()
    cache = a_cache(clock)
    cache.put("a", 1)
    clock.advance(timedelta(minutes=5) - timedelta(microseconds=1))
    assert cache.get("a") == 1
    clock.advance(timedelta(microseconds=1))
    assert cache.get("a") is None
    assert len(cache) == 0


def test_reading_a_key_does_not_make_it_live_longer() -> None:
    clock = FixedClock()
    cache = a_cache(clock)
    cache.put("a", 1)
    clock.advance(timedelta(minutes=3))
    assert cache.get("a") == 1
    clock.advance(timedelta(minutes=3))
    assert cache.get("a") is None


def test_the_key_not_used_for_longest_makes_room() -> None:
    cache = a_cache(FixedClock())
    cache.put("a", 1)
    cache.put("b", 2)
    cache.get("a")
    cache.put("c", 3)
    assert [cache.get(key) for key in ("a", "b", "c")] == [1, None, 3]


def test_chosen_keys_are_forgotten() -> None:
    cache = a_cache(FixedClock())
    cache.put("a", 1)
    cache.put("b", 2)
    cache.drop(lambda key: key == "a")
    cache.discard("never held")
    assert [cache.get(key) for key in ("a", "b")] == [None, 2]
