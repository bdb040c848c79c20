"""Owns entitlements: the paywall's answer, the list, and what billing's events change."""

from dataclasses import replace
from datetime import UTC
from uuid import UUID

from gatefold.billing.v1 import event_pb2 as billing_event_pb2

from libs import caller, errors, ids
from libs.caller import CallerKind
from libs.clock import Clock
from libs.events.event import Event
from libs.postgres import Connection, Database
from services.subscriber.domain import entitlement
from services.subscriber.domain.entitlement import Decision, Entitlement, Grant
from services.subscriber.repository import entitlements, subscribers
from services.subscriber.usecases import rights
from services.subscriber.usecases.facts import Facts
from services.subscriber.usecases.soft_walls import SoftWalls

BILLING_EVENTS = frozenset(
    {"subscription.activated", "subscription.renewed", "subscription.past_due", "subscription.ended"}
)
"""The events of billing that say until when a subscription opens what; all carry SubscriptionChanged."""


class Entitlements:
    """What readers may use."""

    def __init__(self, db: Database, clock: Clock, facts: Facts, walls: SoftWalls) -> None:
        self._db = db
        self._clock = clock
        self._facts = facts
        self._walls = walls

    async def decide_access(self, feature: str, subject: UUID | None) -> Decision:
        """Decides for the signed-in reader, or for `subject` when a secret key asks.

        One query. A soft wall is said and never refuses anything. Raises `invalid("subscriber_required")` when a secret
        key names nobody and `forbidden("subscriber_foreign")` when anyone else asks about another reader.
        """
        who = caller.current()
        account = who.require_account()
        entitlement.checked_feature(feature)
        match who.kind:
            case CallerKind.SECRET_KEY:
                if subject is None:
                    raise errors.invalid(
                        "subscriber_required", "A secret key asks about a reader.", field="subscriber_id"
                    )
            case CallerKind.SUBSCRIBER:
                if subject not in (None, who.require_subject()):
                    raise errors.forbidden("subscriber_foreign", "A reader asks about themselves only.")
                subject = who.require_subject()
            case _:
                if subject is not None:
                    raise errors.forbidden("subscriber_foreign", "Only a secret key asks about a reader by identifier.")
        seen = self._walls.entities(who, subject)
        if subject is None and not seen:
            return entitlement.ANONYMOUS
        async with self._db.tenant(account, "decide_access", read_only=True) as conn:
            found, walled = await entitlements.to_feature(conn, account, subject, feature, seen, self._clock.wall())
        made = entitlement.decide(found, self._clock.now(account)) if subject is not None else entitlement.ANONYMOUS
        return replace(made, soft_wall=True) if walled else made

    async def list_entitlements(self, subject: UUID) -> list[tuple[Entitlement, bool]]:
        """Returns a reader's rights by feature, each with whether it holds now; raises `not_found`."""
        account = caller.current().require_account()
        async with self._db.tenant(account, "list_entitlements", read_only=True) as conn:
            if await subscribers.find(conn, account, subject) is None:
                raise errors.not_found("subscriber_not_found", "There is no such reader.")
            found = (await entitlements.of_readers(conn, account, [subject])).get(subject, [])
        now = self._clock.now(account)
        return [(right, right.active(now)) for right in found]

    async def take_billing_event(self, conn: Connection, event: Event) -> None:
        """Applies one of billing's events within the consumer's transaction; taking it twice changes nothing."""
        data = event.data
        if event.type not in BILLING_EVENTS or not isinstance(data, billing_event_pb2.SubscriptionChanged):
            return
        subject = ids.decode("subj", data.subscriber_id, field="subscriber_id")
        grant = Grant(
            subscription_id=ids.decode("sub", data.subscription_id, field="subscription_id"),
            features=tuple(data.features),
            active_from=data.period_start.ToDatetime(tzinfo=UTC),
            # A subscription that ended without a date ended when the event happened.
            access_until=(
                data.access_until.ToDatetime(tzinfo=UTC) if data.HasField("access_until") else event.occurred_at
            ),
        )
        now = self._clock.now(event.account)

        def granted(known: dict[UUID, list[Entitlement]]) -> list[tuple[UUID, Entitlement]]:
            return [(subject, right) for right in entitlement.regranted(known.get(subject, ()), grant, now)]

        await rights.change(conn, event.account, [subject], granted, now, self._facts)
