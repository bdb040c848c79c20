"""The proof of work: what is asked, what is taken, and for whom it counts."""

import hashlib
import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from libs.errors import GatefoldError
from services.gateway.http.challenge import TASK_SECONDS, Challenges, Task

AGENT = "Mozilla/5.0"
HOME, NEIGHBOUR, ELSEWHERE = "192.0.2.1", "192.0.2.200", "192.0.3.1"


class Clock:
    time = datetime(2026, 11, 1, tzinfo=UTC)

    def wall(self) -> datetime:
        return self.time


def challenges(clock: Any = None, secret: str = "a secret", bits: int = 8) -> Challenges:
    count = itertools.count()
    return Challenges(
        secret,
        bits=bits,
        clearance_seconds=600,
        clock=clock or Clock(),
        randomness=lambda size: next(count).to_bytes(size, "big"),
    )


def solved(task: Task) -> int:
    """Solves a task as docs/firewall.md says."""
    for number in itertools.count():
        digest = hashlib.sha256(f"{task.challenge}.{number}".encode()).digest()
        if int.from_bytes(digest, "big") < 1 << (256 - task.bits):
            return number
    raise AssertionError


def refused(own: Challenges, challenge: str, number: int, address: str = HOME, agent: str = AGENT) -> bool:
    with pytest.raises(GatefoldError, match="challenge_refused"):
        own.clearance(challenge, number, address, agent)
    return True


def test_a_right_answer_earns_a_clearance_that_counts_for_this_client() -> None:
    clock = Clock()
    own = challenges(clock)
    task = own.set_task(HOME, AGENT)
    token = own.clearance(task.challenge, solved(task), HOME, AGENT)

    assert own.clears(token, HOME, AGENT)
    assert own.clears(token, NEIGHBOUR, AGENT)
    assert not own.clears(token, ELSEWHERE, AGENT)
    assert not own.clears(token, HOME, "another")
    assert challenges(clock).clears(token, HOME, AGENT)
    assert not challenges(clock, "another secret").clears(token, HOME, AGENT)
    clock.time += timedelta(seconds=599)
    assert own.clears(token, HOME, AGENT)
    clock.time += timedelta(seconds=1)
    assert not own.clears(token, HOME, AGENT)


def test_a_wrong_answer_earns_nothing() -> None:
    own = challenges(bits=16)
    task = own.set_task(HOME, AGENT)
    number = solved(task)

    assert own.clearance(task.challenge, number, HOME, AGENT)
    for wrong in (number + 1, number - 1, -1, 2**60):
        assert refused(own, task.challenge, wrong)


def test_an_answer_is_taken_from_whom_the_task_was_set_and_in_time() -> None:
    clock = Clock()
    own = challenges(clock)
    task = own.set_task(HOME, AGENT)
    number = solved(task)

    assert refused(own, task.challenge, number, address=ELSEWHERE)
    assert refused(own, task.challenge, number, agent="another")
    assert refused(challenges(secret="another secret"), task.challenge, number)
    clock.time += timedelta(seconds=TASK_SECONDS)
    assert refused(own, task.challenge, number)


def test_no_part_of_a_task_can_be_bent() -> None:
    own = challenges()
    task = own.set_task(HOME, AGENT)
    form, ends_at, bits, nonce, mac = task.challenge.split(".")
    bent = [
        [form, str(int(ends_at) + 600), bits, nonce, mac],
        [form, ends_at, "0", nonce, mac],
        [form, ends_at, "1", nonce, mac],
        [form, ends_at, bits, "A" * 21 + "B", mac],
        [form, ends_at, bits, nonce, ("A" if mac[0] != "A" else "B") + mac[1:]],
        ["pass1", ends_at, bits, nonce, mac],
        [form, ends_at, bits, nonce],
    ]
    for parts in bent:
        text = ".".join(parts)
        assert all(refused(own, text, number) for number in range(3))
        assert refused(own, text, solved(Task(text, 8, 300)))


def test_a_task_is_no_clearance() -> None:
    own = challenges()
    task = own.set_task(HOME, AGENT)
    _, ends_at, _, _, mac = task.challenge.split(".")

    for token in ("", "pass1", task.challenge, f"pass1.{ends_at}.{mac}", f"pass1.99999999999.{'A' * 43}", "\x00é"):
        assert not own.clears(token, HOME, AGENT)


def test_tasks_differ_and_say_how_hard_they_are() -> None:
    own = challenges(bits=12)
    first, second = own.set_task(HOME, AGENT), own.set_task(HOME, AGENT)

    assert first.challenge != second.challenge
    assert (first.bits, first.challenge.split(".")[2]) == (12, "12")
    assert json.dumps(first.challenge).isascii()
