"""Owns the reader's profile: its limits, and how a change or an imported record alters it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from libs import errors

MOST_NAME = 200
MOST_NOTE = 2000
MOST_LABEL = 191
MOST_LABELS = 50
MOST_METADATA_KEYS = 50
MOST_METADATA_VALUE = 500
MOST_METADATA_KEY = 40
MOST_EXTERNAL_ID = 120

SOURCES = ("api", "import", "registration")


@dataclass(frozen=True)
class Profile:
    """A reader as the account knows them; `sequence` counts the events of the aggregate."""

    subject_id: UUID
    sequence: int
    email: str
    name: str
    note: str
    subscribed_to_emails: bool
    complimentary: bool
    labels: tuple[str, ...]
    external_id: str | None
    metadata: Mapping[str, str]
    source: str
    created_at: datetime


@dataclass(frozen=True)
class NewReader:
    """What a caller says of a reader that is to be added."""

    email: str
    name: str = ""
    note: str = ""
    subscribed_to_emails: bool = False
    labels: tuple[str, ...] = ()
    external_id: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def profile(self, subject_id: UUID, address: str, source: str, at: datetime) -> Profile:
        """Returns the new reader's profile under a subject; `address` is the checked one. Raises `invalid(…)`."""
        _check_length(self.name, MOST_NAME, "name")
        _check_length(self.note, MOST_NOTE, "note")
        _check_length(self.external_id, MOST_EXTERNAL_ID, "external_id")
        labels = tuple(dict.fromkeys(label for text in self.labels if (label := tidy(text))))
        if len(labels) > MOST_LABELS:
            raise errors.invalid("labels_too_many", f"A reader has at most {MOST_LABELS} labels.", field="labels")
        for label in labels:
            _check_length(label, MOST_LABEL, "labels")
        if len(self.metadata) > MOST_METADATA_KEYS:
            raise errors.invalid(
                "metadata_too_many", f"A reader has at most {MOST_METADATA_KEYS} metadata keys.", field="metadata"
            )
        for key, value in self.metadata.items():
            _check_length(key, MOST_METADATA_KEY, "metadata")
            _check_length(value, MOST_METADATA_VALUE, "metadata")
        for text in (*labels, self.external_id):
            # These are stored as text, which PostgreSQL keeps without NUL.
            if "\0" in text:
                raise errors.invalid("character_invalid", "Texts may not contain NUL characters.")
        return Profile(
            subject_id=subject_id,
            sequence=1,
            email=address,
            name=tidy(self.name),
            note=self.note,
            subscribed_to_emails=self.subscribed_to_emails,
            complimentary=False,
            labels=labels,
            external_id=self.external_id or None,
            metadata=dict(self.metadata),
            source=source,
            created_at=at,
        )


@dataclass(frozen=True)
class Change:
    """What a caller wants to change; None leaves a field as it is."""

    name: str | None = None
    note: str | None = None
    subscribed_to_emails: bool | None = None


@dataclass(frozen=True)
class ImportedReader:
    """What one record of a member file says of a reader; None and empty say nothing."""

    line: int
    email: str
    email_key: str
    name: str
    note: str
    subscribed_to_emails: bool | None
    complimentary: bool | None
    labels: tuple[str, ...]
    metadata: Mapping[str, str]
    created_at: datetime | None


def check_change(change: Change) -> None:
    """Raises `invalid("too_long")` for a change that no profile could take."""
    _check_length(change.name or "", MOST_NAME, "name")
    _check_length(change.note or "", MOST_NOTE, "note")


def applied(profile: Profile, change: Change) -> Profile:
    """Returns the profile with the change; the same object when nothing differs."""
    changed = replace(
        profile,
        name=profile.name if change.name is None else tidy(change.name),
        note=profile.note if change.note is None else change.note,
        subscribed_to_emails=(
            profile.subscribed_to_emails if change.subscribed_to_emails is None else change.subscribed_to_emails
        ),
    )
    return profile if changed == profile else changed


def merged(profile: Profile, record: ImportedReader) -> Profile:
    """Returns a known reader's profile with what an imported record adds; the same object when it adds nothing.

    A record never takes away: empty cells leave what is known, labels and metadata are added to. Whoever opted out of
    mails here stays out, whatever the old system thought (consent is given by the reader, GDPR Art. 7(3)); a record
    may opt out. Free access may be given, never withdrawn. The address, its spelling and the first date stay.
    """
    labels = profile.labels + tuple(label for label in record.labels if label not in profile.labels)
    changed = replace(
        profile,
        name=record.name or profile.name,
        note=record.note or profile.note,
        subscribed_to_emails=profile.subscribed_to_emails and record.subscribed_to_emails is not False,
        complimentary=profile.complimentary or record.complimentary is True,
        labels=labels[:MOST_LABELS],
        metadata=dict(list({**profile.metadata, **record.metadata}.items())[:MOST_METADATA_KEYS]),
    )
    return profile if changed == profile else changed


def changed_fields(before: Profile, after: Profile) -> list[str]:
    """Names the fields that differ, in the order of the API."""
    names = ("email", "name", "note", "subscribed_to_emails", "complimentary", "labels", "metadata")
    return [name for name in names if getattr(before, name) != getattr(after, name)]


def tidy(text: str) -> str:
    """Returns the text on one line, runs of white space as one space: a name must not break a mail header."""
    return " ".join(text.split())


def _check_length(text: str, most: int, name: str) -> None:
    if len(text) > most:
        raise errors.invalid("too_long", f"This has at most {most} characters.", field=name)
