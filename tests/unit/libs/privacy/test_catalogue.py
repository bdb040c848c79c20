"""The check that all personal data of a schema is accounted for."""

from libs.privacy import SubjectTable, Via, years_after_year_end
from libs.privacy.catalogue import Catalogue, Column, problems
from libs.privacy.mark import parse

UNTIL_ERASURE = "basis: contract; retention: until_erasure"
SEALED = f"pii: contact; {UNTIL_ERASURE}; sealed: profile; field: 1"


def a_column(table: str, name: str, comment: str | None = "pii: none", **changes: object) -> Column:
    fields: dict[str, object] = {"type": "text", "not_null": False, "key_place": None}
    return Column(table=table, name=name, mark=parse(comment), **(fields | changes))  # type: ignore[arg-type]


def a_table(name: str, *more: Column) -> list[Column]:
    return [
        a_column(name, "account_id", type="uuid", key_place=0),
        a_column(name, "id", type="uuid", key_place=1),
        a_column(name, "subject_id", f"pii: pseudonym; {UNTIL_ERASURE}", type="uuid"),
        *more,
    ]


def catalogue(*tables: list[Column]) -> Catalogue:
    return {table[0].table: table for table in tables}


PROFILE = SubjectTable("profile", 201)


def test_a_schema_in_order_has_no_problems() -> None:
    email = a_column("profile", "email_sealed", SEALED, type="bytea")
    assert problems(catalogue(a_table("profile", email)), [PROFILE]) == []


def test_an_unmarked_column_is_named() -> None:
    found = problems(catalogue(a_table("profile", a_column("profile", "nickname", None))), [PROFILE])
    assert found == ["profile.nickname has no pii mark"]


def test_a_table_of_personal_data_that_nobody_erases_is_named() -> None:
    (found,) = problems(catalogue(a_table("profile")), [])
    assert found.startswith("profile.subject_id holds personal data until erasure")


def test_data_that_ends_by_itself_needs_no_subject_table() -> None:
    marked = [a_column("queue", "caller", "pii: pseudonym; basis: contract; retention: hours_24", key_place=0)]
    assert problems(catalogue(marked), []) == []


def test_columns_that_finding_or_opening_needs_must_exist() -> None:
    table = SubjectTable("profile", 201, subject_column="reader", row_column="row")
    sealed = a_column("profile", "email_sealed", SEALED, type="bytea")
    found = problems(catalogue(a_table("profile", sealed)), [table])
    assert found == ["profile: there is no column reader", "profile: there is no column row"]


def test_a_way_over_another_table_must_exist() -> None:
    line = SubjectTable("line", 302, via=Via("invoice_id", "invoice"))
    lines = [a_column("line", "account_id", key_place=0), a_column("line", "invoice_id", key_place=1)]
    assert problems(catalogue(lines, a_table("invoice")), [line, SubjectTable("invoice", 301)]) == []
    assert problems(catalogue(lines, a_table("invoice")), [SubjectTable("invoice", 301), line]) == [
        "line is found by way of invoice and must come before it"
    ]
    (found, *_) = problems(catalogue(lines), [line])
    assert found == "line: invoice has no column id"


def test_numbers_are_used_once() -> None:
    tables = catalogue(a_table("profile"), a_table("note"))
    found = problems(tables, [PROFILE, SubjectTable("note", 201)])
    assert "note: table number 201 is used twice" in found
    twice = a_table("profile", *(a_column("profile", name, SEALED, type="bytea") for name in ("a_sealed", "b_sealed")))
    assert "profile: a_sealed shares the field number 1" in problems(catalogue(twice), [PROFILE])


def test_a_sealed_column_is_bytea_for_a_known_purpose() -> None:
    wrong = a_column("profile", "email_sealed", f"pii: contact; {UNTIL_ERASURE}; sealed: marketing; field: 1")
    found = problems(catalogue(a_table("profile", wrong)), [PROFILE])
    assert found == [
        "profile: email_sealed is sealed for an unknown purpose, marketing",
        "profile: email_sealed is sealed and not bytea",
    ]


def test_a_column_that_can_neither_be_null_nor_empty_cannot_be_anonymised() -> None:
    born = a_column("profile", "born_on", f"pii: identity; {UNTIL_ERASURE}", type="date", not_null=True)
    name = a_column("profile", "name", f"pii: identity; {UNTIL_ERASURE}", type="text", not_null=True)
    anonymised = SubjectTable("profile", 201, erase="anonymise")
    assert problems(catalogue(a_table("profile", name)), [anonymised]) == []
    assert problems(catalogue(a_table("profile", born)), [anonymised]) == [
        "profile: born_on cannot be emptied: it is date NOT NULL"
    ]
    assert problems(catalogue(a_table("profile", born)), [PROFILE]) == []


def test_a_retained_table_needs_the_column_that_its_end_counts_from() -> None:
    retained = SubjectTable(
        "profile", 201, erase="retain", retain_reason="tax_law", retain_until=years_after_year_end(10)
    )
    assert problems(catalogue(a_table("profile")), [retained]) == ["profile: there is no column created_at"]
