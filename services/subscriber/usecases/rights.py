"""Owns changing readers' rights: under their heads' locks, announced when the features they may use are others."""

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from libs import outbox
from libs.postgres import Connection
from services.subscriber.domain.entitlement import Entitlement, active_features
from services.subscriber.repository import entitlements
from services.subscriber.usecases.facts import Facts

NewRights = Callable[[dict[UUID, list[Entitlement]]], Sequence[tuple[UUID, Entitlement]]]
"""Given the rights that readers have, returns those to add or to change."""


async def change(
    conn: Connection, account: UUID, subjects: Sequence[UUID], new_rights: NewRights, now: datetime, facts: Facts
) -> None:
    """Changes the rights of readers and announces, in the same transaction, whose features are others by it."""
    heads = await entitlements.lock_heads(conn, account, subjects)
    rights = new_rights(await entitlements.of_readers(conn, account, subjects))
    if rights:
        await entitlements.put(conn, account, rights)
    after = await entitlements.of_readers(conn, account, subjects)
    usable = {subject: active_features(after.get(subject, ()), now) for subject in heads}
    changed = {subject: features for subject, features in usable.items() if features != heads[subject].features}
    if not changed:
        return
    await entitlements.advance_heads(conn, account, changed)
    await outbox.append_all(
        conn,
        events=[
            facts.entitlement_changed(account, subject, heads[subject].sequence + 1, features)
            for subject, features in changed.items()
        ],
    )
