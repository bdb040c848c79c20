"""Tests of libs/durations against prometheus_client's own histogram, which costs more."""

import random

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from libs.durations import Histogram
from libs.telemetry import SECONDS


def test_what_is_read_is_what_prometheus_clients_own_histogram_says() -> None:
    mine, theirs, randomness = CollectorRegistry(), CollectorRegistry(), random.Random(7)
    ours = Histogram("took_seconds", "Time", ("route", "status"), SECONDS)
    mine.register(ours)
    known = prometheus_client.Histogram("took_seconds", "Time", ("route", "status"), registry=theirs, buckets=SECONDS)
    # Bounds themselves, what is below the least of them and what is above the greatest.
    for seconds in (*SECONDS, 0.0, 99.0, *(randomness.expovariate(10) for _ in range(500))):
        for labels in (("/v1/a", 200), ('with "quotes"\n', 404)):
            ours.labels(*labels).observe(seconds)
            known.labels(*labels).observe(seconds)
    expected = [line for line in generate_latest(theirs).decode().splitlines() if "_created" not in line]
    assert generate_latest(mine).decode().splitlines() == expected


def test_without_labels_it_is_there_before_anything_took_long() -> None:
    registry, ours = CollectorRegistry(), Histogram("took_seconds", "Time", (), (0.5, 1.0))
    registry.register(ours)
    assert registry.get_sample_value("took_seconds_count") == 0
    ours.observe(0.7)
    assert registry.get_sample_value("took_seconds_bucket", {"le": "0.5"}) == 0
    assert registry.get_sample_value("took_seconds_bucket", {"le": "1.0"}) == 1
    assert registry.get_sample_value("took_seconds_sum") == 0.7


def test_labels_that_are_missing_are_a_fault() -> None:
    with pytest.raises(ValueError, match="route"):
        Histogram("took_seconds", "Time", ("route",), SECONDS).labels()
