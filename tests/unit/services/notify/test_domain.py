"""Rules of telling: which events are public, when a try is repeated and when it is given up."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.notify import domain
from services.notify.domain import MAIL_WAITS, WEBHOOK_WAITS, Endpoint

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def endpoint(*event_types: str, disabled_at: datetime | None = None) -> Endpoint:
    return Endpoint(UUID(int=1), "https://example.com", event_types, NOW, disabled_at)


def test_an_endpoint_without_types_wants_every_event() -> None:
    assert endpoint().wants("invoice.paid")


def test_an_endpoint_wants_only_the_types_it_names() -> None:
    assert endpoint("invoice.paid").wants("invoice.paid")
    assert not endpoint("invoice.paid").wants("subscription.renewed")


def test_a_stopped_endpoint_wants_nothing() -> None:
    assert not endpoint(disabled_at=NOW).wants("invoice.paid")


@pytest.mark.parametrize("event_type", ["challenge.requested", "password.breached", "session.started"])
def test_what_is_between_the_platform_and_one_person_is_not_public(event_type: str) -> None:
    assert not domain.is_public(event_type)


def test_what_happened_to_an_invoice_is_public() -> None:
    assert domain.is_public("invoice.paid")


@pytest.mark.parametrize("waits", [WEBHOOK_WAITS, MAIL_WAITS])
def test_each_wait_is_longer_than_the_one_before(waits: tuple[timedelta, ...]) -> None:
    assert list(waits) == sorted(set(waits))


@pytest.mark.parametrize("waits", [WEBHOOK_WAITS, MAIL_WAITS])
def test_every_wait_is_used_once_and_then_it_is_given_up(waits: tuple[timedelta, ...]) -> None:
    tries = [domain.next_try(waits, attempts, NOW) for attempts in range(1, len(waits) + 2)]
    assert tries == [*(NOW + wait for wait in waits), None]


def test_webhooks_are_tried_for_about_three_days() -> None:
    assert timedelta(days=3) < sum(WEBHOOK_WAITS, timedelta()) < timedelta(days=4)


@pytest.mark.parametrize(
    ("status", "taken"), [(200, True), (204, True), (301, False), (410, False), (500, False), (0, False)]
)
def test_only_a_2xx_means_that_the_other_side_has_it(status: int, taken: bool) -> None:
    assert domain.took(status) is taken
