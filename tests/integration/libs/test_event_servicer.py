"""EventService over gRPC: what a consumer may pull, and what it may not."""

import pytest
from gatefold.events.v1 import event_pb2, event_pb2_grpc

from libs import caller
from libs.errors import GatefoldError
from libs.ids import IdMaker, encode
from tests.support.events import CONSUMER, PRODUCER, Events


async def test_an_aggregates_events_are_listed_in_order_after_a_sequence(events: Events, ids: IdMaker) -> None:
    account, aggregate = ids.new(), ids.new()
    told = await events.tell_many(account, aggregate, 5)
    await events.tell_many(account, ids.new(), 2)
    request = event_pb2.ListAggregateEventsRequest(
        account_id=encode("acct", account),
        aggregate_type="invoice",
        aggregate_id=told[0].aggregate_id,
        after_sequence=2,
        limit=2,
    )
    with caller.acting(caller.service_caller(CONSUMER, account, request_id="test")):
        stub = event_pb2_grpc.EventServiceStub(events.channels().channel(PRODUCER))
        response = await stub.ListAggregateEvents(request)
    assert list(response.envelopes) == [event.to_envelope() for event in told[2:4]]


async def test_another_accounts_events_are_not_found(events: Events, ids: IdMaker) -> None:
    account, aggregate = ids.new(), ids.new()
    (told,) = await events.tell_many(account, aggregate, 1)
    request = event_pb2.ListAggregateEventsRequest(
        account_id=encode("acct", account), aggregate_type="invoice", aggregate_id=told.aggregate_id
    )
    stub = event_pb2_grpc.EventServiceStub(events.channels().channel(PRODUCER))
    with (
        caller.acting(caller.service_caller(CONSUMER, ids.new(), request_id="test")),
        pytest.raises(GatefoldError) as refused,
    ):
        await stub.ListAggregateEvents(request)
    assert refused.value.reason == "account_unknown"


async def test_pages_of_all_events_follow_each_other_and_end(events: Events, ids: IdMaker) -> None:
    told = [event for _ in range(3) for event in await events.tell_many(ids.new(), ids.new(), 4)]
    stub = event_pb2_grpc.EventServiceStub(events.channels().channel(PRODUCER))
    listed: list[str] = []
    cursor, pages = "", 0
    with caller.acting(caller.service_caller(CONSUMER, None, request_id="test")):
        while True:
            response = await stub.ListEvents(event_pb2.ListEventsRequest(cursor=cursor, limit=5))
            if not response.envelopes:
                break
            assert response.next_cursor != cursor
            cursor, pages = response.next_cursor, pages + 1
            listed += [envelope.id for envelope in response.envelopes]
    assert response.next_cursor == cursor
    assert (pages, listed) == (3, [event.to_envelope().id for event in told])


@pytest.mark.parametrize("cursor", ["x", "1", "1.2.3", "-1.2", "1.x", "9" * 30 + ".1", "1.2 OR 1=1"])
async def test_a_cursor_of_somebody_elses_making_is_refused(events: Events, cursor: str) -> None:
    stub = event_pb2_grpc.EventServiceStub(events.channels().channel(PRODUCER))
    with (
        caller.acting(caller.service_caller(CONSUMER, None, request_id="test")),
        pytest.raises(GatefoldError) as refused,
    ):
        await stub.ListEvents(event_pb2.ListEventsRequest(cursor=cursor))
    assert refused.value.reason == "cursor_malformed"
