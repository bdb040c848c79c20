"""Owns the marks: what a column's comment says about the personal data in it."""

from dataclasses import dataclass

NOT_PERSONAL = "none"
UNTIL_ERASURE = "until_erasure"
# Held only to recognise somebody: of no use to the person, and a danger in a download.
WITHHELD = frozenset({"credential", "secret"})
_PREFIX = "pii:"
_FLAGS = frozenset({"index", "json"})
_FIELDS = frozenset({"basis", "retention", "sealed", "field"})


class MarkError(Exception):
    """A schema's personal data is not accounted for; says which columns and why. A service does not start with it."""


@dataclass(frozen=True)
class Mark:
    """What a column holds.

    `pii: <category>; basis: <lawful basis>; retention: <rule>`, for an encrypted column with `; sealed: <purpose>;
    field: <number>` (and `; json` where the plaintext is JSON), for a blind index with `; index`; or `pii: none`.
    """

    category: str
    basis: str = ""
    retention: str = ""
    sealed: str = ""
    field: int = 0
    index: bool = False
    json: bool = False

    @property
    def personal(self) -> bool:
        """Whether the column holds personal data, pseudonymous data included."""
        return self.category != NOT_PERSONAL


def parse(comment: str | None) -> Mark | None:
    """Returns the mark in a column's comment, None when there is none; raises MarkError for one that is malformed."""
    if comment is None or not comment.startswith(_PREFIX):
        return None
    category, *parts = (part.strip() for part in comment.removeprefix(_PREFIX).split(";"))
    flags = {part for part in parts if ":" not in part}
    fields = {name.strip(): value.strip() for name, _, value in (part.partition(":") for part in parts if ":" in part)}
    unknown = sorted((flags - _FLAGS) | (fields.keys() - _FIELDS))
    if unknown or not category:
        raise MarkError(f"mark {comment!r} is not understood" + (f": {', '.join(unknown)}" if unknown else ""))
    if category != NOT_PERSONAL and not (fields.get("basis") and fields.get("retention")):
        raise MarkError(f"mark {comment!r} lacks a basis or a retention rule")
    field = fields.get("field", "0")
    if not field.isdecimal() or (int(field) > 0) != bool(fields.get("sealed")):
        raise MarkError(f"mark {comment!r}: sealed and field (a number from 1) come together")
    return Mark(
        category=category,
        basis=fields.get("basis", ""),
        retention=fields.get("retention", ""),
        sealed=fields.get("sealed", ""),
        field=int(field),
        index="index" in flags,
        json="json" in flags,
    )
