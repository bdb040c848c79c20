"""Serves gatefold.events.v1.EventService: what a stream lost, a consumer pulls from the producer's outbox."""

from typing import Any

import grpc
from gatefold.events.v1 import envelope_pb2, event_pb2, event_pb2_grpc

from libs import caller, errors
from libs.events.event import account_of
from libs.events.place import cursor_of, place_of
from libs.postgres import Database

Context = grpc.aio.ServicerContext[Any, Any]

MOST_EVENTS = 500


class EventServicer(event_pb2_grpc.EventServiceServicer):
    """Lists events of the service's outbox, as long as it keeps them."""

    def __init__(self, jobs_db: Database) -> None:
        self._db = jobs_db

    async def ListAggregateEvents(
        self, request: event_pb2.ListAggregateEventsRequest, context: Context
    ) -> event_pb2.ListAggregateEventsResponse:
        """Lists an aggregate's events after a sequence; not_found("account_unknown") for another account's."""
        account = account_of(envelope_pb2.Envelope(account_id=request.account_id))
        if account != caller.current().require_account():
            raise errors.not_found("account_unknown", "There is no such account.")
        async with self._db.transaction("list_aggregate_events", read_only=True) as conn:
            rows = await conn.fetch(
                "SELECT envelope FROM outbox WHERE account_id = $1 AND aggregate_type = $2 AND aggregate_id = $3"
                " AND sequence > $4 ORDER BY sequence LIMIT $5",
                account,
                request.aggregate_type,
                request.aggregate_id,
                request.after_sequence,
                _limit(request.limit),
            )
        envelopes = [envelope_pb2.Envelope.FromString(row["envelope"]) for row in rows]
        return event_pb2.ListAggregateEventsResponse(envelopes=envelopes)

    async def ListEvents(self, request: event_pb2.ListEventsRequest, context: Context) -> event_pb2.ListEventsResponse:
        """Lists events after a cursor in an order in which nothing appears later before what was listed.

        That order is by transaction, and only transactions older than every running one are shown. A cursor of another
        cluster's history (after a restore) starts over: what was consumed is skipped by its sequence.
        """
        xid, position = place_of(request.cursor)
        async with self._db.transaction("list_events", read_only=True) as conn:
            if xid >= int(await conn.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")):
                xid, position = 0, 0
            rows = await conn.fetch(
                "SELECT envelope, xid::text AS xid, position FROM outbox"
                " WHERE (xid, position) > ($1::text::xid8, $2::bigint)"
                " AND xid < pg_snapshot_xmin(pg_current_snapshot())"
                " ORDER BY xid, position LIMIT $3",
                str(xid),
                position,
                _limit(request.limit),
            )
        if not rows:
            return event_pb2.ListEventsResponse(next_cursor=request.cursor)
        return event_pb2.ListEventsResponse(
            envelopes=[envelope_pb2.Envelope.FromString(row["envelope"]) for row in rows],
            next_cursor=cursor_of((rows[-1]["xid"], rows[-1]["position"])),
        )


def _limit(wanted: int) -> int:
    return min(wanted, MOST_EVENTS) if wanted > 0 else MOST_EVENTS
