"""How a change and an imported record alter a profile."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.errors import GatefoldError
from services.subscriber.domain.profile import (
    MOST_LABELS,
    MOST_METADATA_KEYS,
    Change,
    ImportedReader,
    Profile,
    applied,
    changed_fields,
    check_change,
    merged,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)
KNOWN = Profile(
    subject_id=UUID(int=1),
    sequence=3,
    email="mei@example.com",
    name="Mei",
    note="old",
    subscribed_to_emails=True,
    complimentary=False,
    labels=("VIP",),
    external_id=None,
    metadata={"place": "7"},
    source="api",
    created_at=AT,
)
SILENT = ImportedReader(2, "mei@example.com", "mei@example.com", "", "", None, None, (), {}, None)


def test_a_record_that_says_nothing_changes_nothing() -> None:
    assert merged(KNOWN, SILENT) is KNOWN


def test_a_record_adds_and_replaces_and_never_empties() -> None:
    record = replace(SILENT, name="Mei T", labels=("VIP", "Print"), metadata={"tiers": "Gold"}, complimentary=True)
    after = merged(KNOWN, record)
    assert (after.name, after.note, after.labels) == ("Mei T", "old", ("VIP", "Print"))
    assert (after.metadata, after.complimentary) == ({"place": "7", "tiers": "Gold"}, True)
    assert changed_fields(KNOWN, after) == ["name", "complimentary", "labels", "metadata"]
    assert merged(after, record) is after


@pytest.mark.parametrize(
    ("here", "there", "after"),
    [(True, True, True), (True, False, False), (True, None, True), (False, True, False), (False, None, False)],
)
def test_an_import_may_opt_a_reader_out_and_never_in(here: bool, there: bool | None, after: bool) -> None:
    profile = replace(KNOWN, subscribed_to_emails=here)
    assert merged(profile, replace(SILENT, subscribed_to_emails=there)).subscribed_to_emails is after


def test_free_access_is_given_and_not_withdrawn() -> None:
    assert merged(replace(KNOWN, complimentary=True), replace(SILENT, complimentary=False)).complimentary


def test_an_import_leaves_address_spelling_date_and_source() -> None:
    record = replace(SILENT, email="MEI@example.com", created_at=datetime(2001, 1, 1, tzinfo=UTC))
    assert merged(KNOWN, record) is KNOWN


def test_labels_and_metadata_stay_within_their_bounds() -> None:
    full = replace(
        KNOWN,
        labels=tuple(f"l{number}" for number in range(MOST_LABELS)),
        metadata={f"k{number}": "" for number in range(MOST_METADATA_KEYS)},
    )
    assert merged(full, replace(SILENT, labels=("one more",), metadata={"tiers": "Gold"})) is full


@given(
    st.builds(
        Change, name=st.none() | st.text(), note=st.none() | st.text(), subscribed_to_emails=st.none() | st.booleans()
    )
)
def test_applying_a_change_twice_is_applying_it_once(change: Change) -> None:
    once = applied(KNOWN, change)
    assert applied(once, change) is once
    assert (once is KNOWN) == (not changed_fields(KNOWN, once))


def test_a_change_that_is_too_long_is_refused() -> None:
    check_change(Change(name="a" * 200, note="a" * 2000))
    for change in (Change(name="a" * 201), Change(note="a" * 2001)):
        with pytest.raises(GatefoldError):
            check_change(change)
