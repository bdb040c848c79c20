"""Owns changing and reading rate limits: quotas in place of defaults, and accounts' own."""

from collections.abc import Mapping
from uuid import UUID

from google.protobuf.message import Message

from libs import errors, ids
from libs.clock import WallClock
from libs.postgres import Database
from services.gateway.domain.bundle import Override, Quota
from services.gateway.domain.register import MOST_OVERRIDES, HeldOverride, HeldQuota
from services.gateway.repository import quotas, versions
from services.gateway.usecases.changes import Changes, Draft, Made


class RateLimits:
    """Quotas and overrides. Whether a name is one is the check's to say."""

    def __init__(
        self, db: Database, changes: Changes, clock: WallClock, defaults: Mapping[str, tuple[int, int]]
    ) -> None:
        """`defaults` are units and seconds by name, which hold where nothing replaces them."""
        self._db = db
        self._changes = changes
        self._clock = clock
        self._defaults = {name: HeldQuota(Quota(name, *given), 0) for name, given in defaults.items()}

    async def set_quota(self, wanted: Quota, request: Message, expected: int) -> HeldQuota:
        """Sets a quota in place of its default; raises as Changes.make."""

        async def write(draft: Draft) -> str:
            await quotas.put_quota(draft.conn, HeldQuota(wanted, draft.number))
            return wanted.name

        await self._changes.make("quota.set", request, expected, write)
        return await self.get_quota(wanted.name)

    async def remove_quota(self, name: str, request: Message, expected: int) -> Made:
        """Goes back to the default; raises `not_found("quota_not_found")`."""

        async def write(draft: Draft) -> str:
            if not await quotas.remove_quota(draft.conn, name):
                raise _no_quota()
            return name

        return await self._changes.make("quota.removed", request, expected, write)

    async def get_quota(self, name: str) -> HeldQuota:
        """Returns a quota, or the default that holds; raises `not_found("quota_not_found")` where there is neither."""
        async with self._db.transaction("get_quota", read_only=True) as conn:
            held = await quotas.find_quota(conn, name) or self._defaults.get(name)
        if held is None:
            raise _no_quota()
        return held

    async def list_quotas(self) -> tuple[tuple[HeldQuota, ...], int]:
        """Returns all quotas that hold by name, defaults among them, and the newest version."""
        async with self._db.transaction("list_quotas", read_only=True) as conn:
            replaced = {held.quota.name: held for held in await quotas.all_quotas(conn)}
            version = await versions.newest(conn)
        found = {**self._defaults, **replaced}
        return tuple(found[name] for name in sorted(found)), version

    async def set_override(self, wanted: Override, request: Message, expected: int) -> HeldOverride:
        """Gives an account a quota of its own; raises `invalid("end_past")` and `precondition("overrides_full")`."""
        if wanted.expires_at is not None and wanted.expires_at <= self._clock.wall():
            raise errors.invalid("end_past", "This end is over already.", field="expires_at")
        name = wanted.quota.name

        async def write(draft: Draft) -> str:
            if await quotas.count_overrides(draft.conn) >= MOST_OVERRIDES:
                raise errors.precondition("overrides_full", f"There are {MOST_OVERRIDES:,} overrides.")
            await quotas.put_override(draft.conn, HeldOverride(wanted, draft.number))
            return _about(wanted.account, name)

        await self._changes.make("override.set", request, expected, write)
        async with self._db.transaction("get_override", read_only=True) as conn:
            held = await quotas.find_override(conn, wanted.account, name)
        if held is None:
            raise _no_override()
        return held

    async def remove_override(self, account: UUID, name: str, request: Message, expected: int) -> Made:
        """Takes an account's own quota away; raises `not_found("override_not_found")`."""

        async def write(draft: Draft) -> str:
            if not await quotas.remove_override(draft.conn, account, name):
                raise _no_override()
            return _about(account, name)

        return await self._changes.make("override.removed", request, expected, write)

    async def list_overrides(
        self, account: UUID | None, after: tuple[UUID, str] | None, limit: int
    ) -> list[HeldOverride]:
        """Returns accounts' own quotas by account and name."""
        async with self._db.transaction("list_overrides", read_only=True) as conn:
            return await quotas.page(conn, account, after, limit)


def _about(account: UUID, name: str) -> str:
    return f"{ids.encode('acct', account)} {name}"


def _no_quota() -> errors.GatefoldError:
    return errors.not_found("quota_not_found", "Nothing is counted by this name, or nothing replaces its default.")


def _no_override() -> errors.GatefoldError:
    return errors.not_found("override_not_found", "The account has no such quota of its own.")
