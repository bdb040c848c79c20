"""Owns how much one account may have its own logs looked at: what is over is refused and costs nobody else."""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from libs import errors

BURST_SECONDS = 10
BYTES_A_RECORD = 256
"""An export of few and long records, or of none that can be read, costs by its length."""
UNDER_WAY = 2
"""Exports of an account that are read at once."""
MOST_ACCOUNTS = 10_000


@dataclass(slots=True)
class _Account:
    left: float
    """Records; below nothing what came with the last export is owed."""
    at: float
    under_way: int = 0


class Allowances:
    """One process's allowances, in records a second; as many again may come at once after a while of few."""

    def __init__(self, records_per_second: int, monotonic: Callable[[], float]) -> None:
        self._rate = records_per_second
        self._burst = records_per_second * BURST_SECONDS
        self._monotonic = monotonic
        self._accounts: OrderedDict[UUID, _Account] = OrderedDict()

    @contextmanager
    def export(self, account: UUID, size: int) -> Iterator[Callable[[int], None]]:
        """Yields what is to be told the number of records once it is known; an export of `size` bytes is read within.

        Raises `too_many("telemetry_rate")` with the time to wait, before anything is read, while the account owes or
        has others under way.
        """
        held = self._held(account)
        if held.left <= 0:
            raise _too_many(math.ceil((1 - held.left) / self._rate))
        if held.under_way >= UNDER_WAY:
            raise _too_many(1)
        owed = size / BYTES_A_RECORD
        held.left -= owed
        held.under_way += 1

        def counted(records: int) -> None:
            held.left -= max(0.0, records - owed)

        try:
            yield counted
        finally:
            held.under_way -= 1

    def _held(self, account: UUID) -> _Account:
        now = self._monotonic()
        held = self._accounts.get(account)
        if held is None:
            self._make_room()
            held = self._accounts[account] = _Account(self._burst, now)
        held.left = min(self._burst, held.left + (now - held.at) * self._rate)
        held.at = now
        self._accounts.move_to_end(account)
        return held

    def _make_room(self) -> None:
        # Who was quiet longest has earned most of it back; who has something under way is not let go.
        for _ in range(len(self._accounts) - MOST_ACCOUNTS + 1):
            account, oldest = self._accounts.popitem(last=False)
            if oldest.under_way:
                self._accounts[account] = oldest


def _too_many(seconds: int) -> errors.GatefoldError:
    return errors.too_many(
        "telemetry_rate", "Too many log records of this account; keep them and send them later.", max(1, seconds)
    )
