"""Columns and views: what a field becomes as a number, read once, and which events conditions choose."""

import random

import numpy as np
import pytest
from gatefold.activity.v1 import activity_pb2

from services.abuse.domain.detector import Condition
from services.abuse.engine.columns import FIELDS, HASHES, LONGEST_TEXT, TEXTS, Reader, text_key
from services.abuse.engine.packed import Activities, entity_key
from services.abuse.engine.view import View, where
from tests.support.activities import BEGIN, activity, hashed


def view_of(events: list[activity_pb2.Activity]) -> View:
    reader, packed = Reader(), Activities.of(events)
    return View(reader.read(packed), np.arange(len(events)), reader.times(packed, None))


def test_hashes_and_texts_become_64_bits_and_0_where_there_is_none() -> None:
    events = [
        activity("", 0, address="one", http_route="/a"),
        activity("", 1, http_route="x" * (LONGEST_TEXT + 1)),
        activity_pb2.Activity(client_address_hash=b"short", http_route="é"),
    ]
    view = view_of(events)
    assert view.field("address").tolist() == [entity_key(hashed("address", "one")), 0, 0]
    assert view.field("route").tolist() == [text_key("/a"), 0, text_key("é")]


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_a_field_is_the_same_read_whole_or_in_parts(field: str) -> None:
    chance = random.Random(1)
    events = [
        activity(
            chance.choice(("", "meter.read")),
            at,
            status=chance.choice((200, 404)),
            address=f"{at % 7}",
            actor=f"{at % 3}",
            client_asn=at % 5,
            geo_country_iso_code=chance.choice(("DE", "FR")),
            geo_location_lat=at % 90,
            http_response_body_size=at * 10**6,
            verified_crawler=at % 2 == 0,
        )
        for at in range(100)
    ]
    columns, parts = Reader().read(Activities.of(events)), Reader().read(Activities.of(events))
    everything = np.arange(100)
    whole = columns.take(field, everything)
    for rows in (everything[::9], everything[50:60], everything):
        assert parts.take(field, rows).tolist() == whole[rows].tolist()
    assert whole.dtype == (np.uint64 if field in TEXTS | HASHES else np.int64)


def test_texts_are_told_apart_and_alike_in_every_process() -> None:
    # Snapshots and tables rely on this very figure.
    assert text_key("sign_in.password") == 0xBC0EFFC62E605AE8
    assert text_key("") == 0
    assert len({text_key(f"/v1/{number}") for number in range(1000)}) == 1000


STATUSES = (200, 201, 301, 401, 404, 500)


@pytest.mark.parametrize(
    ("condition", "chosen"),
    [
        (Condition("status", values=(401, 404)), [401, 404]),
        (Condition("status", values=(401, 404), negated=True), [200, 201, 301, 500]),
        (Condition("status", least=200, most=299), [200, 201]),
        (Condition("status", least=404), [404, 500]),
        (Condition("route", values=("/404",)), [404]),
        (Condition("device", present=True), [200, 301, 404]),
        (Condition("device", present=False), [201, 401, 500]),
    ],
)
def test_conditions_choose_events(condition: Condition, chosen: list[int]) -> None:
    events = [
        activity("", at, status=status, http_route=f"/{status}", **({"device": "d"} if at % 2 == 0 else {}))
        for at, status in enumerate(STATUSES)
    ]
    view = view_of(events)
    assert where(view, (condition,)).field("status").tolist() == chosen
    assert np.array(STATUSES)[view.holds((condition,))].tolist() == chosen


def test_several_conditions_hold_together_however_few_are_left() -> None:
    events = [activity("", at, status=200 + at % 50, http_route=f"/{at % 3}") for at in range(1000)]
    conditions = (Condition("status", values=(207,)), Condition("route", values=("/1",)))
    expected = [at for at in range(1000) if at % 50 == 7 and at % 3 == 1]
    assert view_of(events).holds(conditions).nonzero()[0].tolist() == expected
    assert where(view_of(events), conditions).rows.tolist() == expected


def test_times_are_bounded_by_arrival_and_replaced_where_they_are_none() -> None:
    now = BEGIN * 1000
    events = Activities.of([activity("", at) for at in (0, 10, -7200)] + [activity_pb2.Activity()])
    assert (Reader().times(events, [now] * 4) - now).tolist() == [0, 0, -3_600_000, 0]
    assert (Reader().times(events, None) - now).tolist() == [0, 10_000, -7_200_000, 10_000]
