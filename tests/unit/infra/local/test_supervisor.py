"""How long the supervisor waits before it starts a program again."""

from infra.local.supervisor import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(first_seconds=0.2, longest_seconds=15)
    assert [backoff.pause(failures, 255) for failures in (1, 2, 3, 7, 8, 100)] == [0.2, 0.4, 0.8, 12.8, 15, 15]


def test_chance_takes_away_up_to_half() -> None:
    backoff = Backoff(first_seconds=1)
    assert [backoff.pause(1, chance) for chance in (0, 255)] == [0.5, 1.0]
