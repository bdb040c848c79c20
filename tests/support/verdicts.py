"""Owns verdicts as the abuse service tells them, made by hand."""

import os
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from gatefold.activity.v1 import activity_pb2

from libs import ids

HOUR = timedelta(hours=1)


def verdict(
    scope: str,
    entity: bytes,
    account: UUID | None,
    now: datetime,
    *,
    lasts: timedelta = HOUR,
    action: Any = activity_pb2.Verdict.ACTION_BLOCK,
    **more: Any,
) -> activity_pb2.Verdict:
    """Returns one that holds from now on; without an account it is about the platform."""
    made = activity_pb2.Verdict(
        id=ids.encode("verdict", UUID(bytes=os.urandom(16))),
        account_id=ids.encode("acct", account) if account else "",
        scope=scope,
        entity_hash=entity,
        action=action,
        revision=1,
    )
    made.expires_at.FromDatetime(now + lasts)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def later(earlier: activity_pb2.Verdict, *, expires_at: datetime | None = None, **changes: Any) -> activity_pb2.Verdict:
    """Returns the next state of a verdict."""
    made = activity_pb2.Verdict()
    made.CopyFrom(earlier)
    made.revision += 1
    if expires_at is not None:
        made.expires_at.FromDatetime(expires_at)
    for name, value in changes.items():
        setattr(made, name, value)
    return made
