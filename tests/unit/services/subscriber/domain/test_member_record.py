"""What a record means, why one is refused, and that every record counts once."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.subscriber.domain.member_file import COLUMNS, MemberFile, opened
from services.subscriber.domain.member_record import DETAILS, Problem, read
from services.subscriber.domain.profile import ImportedReader
from services.subscriber.usecases.addresses import spelled

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
DATA = Path(__file__).resolve().parents[4] / "data"


def file_of(*rows: dict[str, str]) -> MemberFile:
    def quoted(cell: str) -> str:
        return '"' + cell.replace('"', '""') + '"'

    text = [",".join(COLUMNS), *(",".join(quoted(row.get(column, "")) for column in COLUMNS) for row in rows)]
    return opened("\n".join(text).encode())


def outcomes(*rows: dict[str, str]) -> list[ImportedReader | Problem]:
    return list(read(file_of(*rows), spelled, AS_OF))


def taken(**row: str) -> ImportedReader:
    (outcome,) = outcomes({"email": "mei@example.com", **row})
    assert isinstance(outcome, ImportedReader), outcome
    return outcome


def refused(**row: str) -> tuple[str, str]:
    (outcome,) = outcomes({"email": "mei@example.com", **row})
    assert isinstance(outcome, Problem), outcome
    assert outcome.line == 2
    return outcome.reason, outcome.column


@pytest.mark.parametrize(
    ("cell", "address"),
    [
        ("mei@example.com", "mei@example.com"),
        ("  Mei@EXAMPLE.com\u00a0", "Mei@example.com"),
        ("\ufeffmei@example.com\u200b", "mei@example.com"),
        ("mei@bücher.example", "mei@bücher.example"),
        ("mei@xn--bcher-kva.example", "mei@bücher.example"),
        ("'+mei@example.com", "+mei@example.com"),
        ("مي@example.com", "مي@example.com"),
    ],
)
def test_an_address_is_taken_in_its_one_spelling(cell: str, address: str) -> None:
    assert taken(email=cell).email == address


@pytest.mark.parametrize("cell", ["", "  ", "\u200b"])
def test_a_record_without_address_is_refused(cell: str) -> None:
    assert refused(email=cell, name="Mei") == ("email_missing", "email")


@pytest.mark.parametrize(
    "cell",
    [
        "mei",
        "mei@",
        "@example.com",
        "mei@example",
        "mei@@example.com",
        "a b@example.com",
        "Mei <mei@example.com>",
        "mei@localhost",
        "mei@example.test",
        f"{'a' * 65}@example.com",
        f"mei@{'a.' * 120}example.com",
        "mei@[192.0.2.1]",
    ],
)
def test_what_is_no_address_is_refused(cell: str) -> None:
    assert refused(email=cell) == ("email_invalid", "email")


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("true", True),
        ("TRUE", True),
        ("1", True),
        ("yes", True),
        ("false", False),
        ("0", False),
        ("No", False),
        ("", None),
    ],
)
def test_yes_and_no_are_understood(cell: str, value: bool | None) -> None:
    reader = taken(subscribed_to_emails=cell, complimentary_plan=cell)
    assert (reader.subscribed_to_emails, reader.complimentary) == (value, value)


@pytest.mark.parametrize("column", ["subscribed_to_emails", "complimentary_plan"])
def test_what_is_neither_yes_nor_no_is_refused(column: str) -> None:
    assert refused(**{column: "maybe"}) == ("boolean_invalid", column)


@pytest.mark.parametrize(
    ("cell", "time"),
    [
        ("2024-01-31T12:00:00.123Z", datetime(2024, 1, 31, 12, 0, 0, 123_000, UTC)),
        ("2024-01-31T12:00:00+02:00", datetime(2024, 1, 31, 12, tzinfo=timezone(timedelta(hours=2)))),
        ("2024-01-31 12:00:00", datetime(2024, 1, 31, 12, tzinfo=UTC)),
        ("2024-01-31", datetime(2024, 1, 31, tzinfo=UTC)),
        ("2026-01-01T00:00:00Z", AS_OF),
        ("", None),
    ],
)
def test_dates_are_iso_8601_and_utc_without_an_offset(cell: str, time: datetime | None) -> None:
    assert taken(created_at=cell).created_at == time


@pytest.mark.parametrize(
    "cell", ["yesterday", "31/12/2021", "2021-02-30", "2026-01-01T00:00:01Z", "1969-12-31", "0001-01-01T00:00:00+23:00"]
)
def test_what_is_no_date_or_lies_in_the_future_is_refused(cell: str) -> None:
    assert refused(created_at=cell) == ("created_at_invalid", "created_at")


@pytest.mark.parametrize(
    ("column", "longest"), [("name", 200), ("note", 2000), ("labels", 191), ("tiers", 500), ("stripe_customer_id", 255)]
)
def test_a_value_may_be_as_long_as_its_column_and_no_longer(column: str, longest: int) -> None:
    taken(**{column: "é" * longest})
    assert refused(**{column: "é" * (longest + 1)}) == ("too_long", column)


def test_a_reader_has_at_most_fifty_labels() -> None:
    assert len(taken(labels=",".join(f"l{number}" for number in range(50))).labels) == 50
    assert refused(labels=",".join(f"l{number}" for number in range(51))) == ("labels_too_many", "labels")


@pytest.mark.parametrize("character", ["\0", "\a", "\x1b", "\x7f", "\x85"])
@pytest.mark.parametrize("column", ["email", "name", "note", "labels", "tiers"])
def test_control_characters_are_refused(column: str, character: str) -> None:
    assert refused(**{column: f"a{character}b@example.com"}) == ("character_invalid", column)


def test_names_and_labels_come_on_one_line_and_notes_keep_theirs() -> None:
    reader = taken(
        name=" Mei\r\nTanaka-Test ", note="one\r\ntwo\n", labels=" VIP ,,VIP,Early\nbird", tiers="Gold , Silver"
    )
    assert (reader.name, reader.note) == ("Mei Tanaka-Test", "one\r\ntwo")
    assert reader.labels == ("VIP", "Early bird")
    assert reader.metadata == {"tiers": "Gold, Silver"}


def test_the_guard_before_a_formula_is_taken_off_and_other_apostrophes_stay() -> None:
    assert taken(note="'=1+1").note == "=1+1"
    assert taken(name="'t Hooft-Test").name == "'t Hooft-Test"


def test_a_shorter_record_is_padded_and_a_longer_one_refused() -> None:
    file = opened(b"email,name,note\na@example.com\nb@example.com,Bar, Foo,x\nc@example.com,,,\n")
    first, *others = read(file, spelled, AS_OF)
    assert isinstance(first, ImportedReader)
    assert others == [Problem(3, "columns_surplus", ""), Problem(4, "columns_surplus", "")]


def test_the_same_address_in_another_case_is_a_duplicate_of_the_first() -> None:
    first, *others = outcomes(
        {"email": "Straße@example.com"}, {"email": "STRASSE@EXAMPLE.COM"}, {"email": " straße@example.com "}
    )
    assert isinstance(first, ImportedReader)
    assert others == [Problem(3, "duplicate", "email"), Problem(4, "duplicate", "email")]


def test_an_address_whose_first_record_was_refused_is_taken_from_the_next() -> None:
    first, second = outcomes({"email": "a@example.com", "created_at": "soon"}, {"email": "a@example.com"})
    assert isinstance(first, Problem)
    assert isinstance(second, ImportedReader)


def test_every_reason_says_what_to_do() -> None:
    assert all(detail.endswith(".") for detail in DETAILS.values())


def test_the_generated_export_has_the_problems_that_were_planted() -> None:
    expected = json.loads((DATA / "ghost_members.expected.json").read_text())
    file = opened((DATA / "ghost_members.csv").read_bytes())
    found = list(read(file, spelled, AS_OF))
    problems = [outcome for outcome in found if isinstance(outcome, Problem)]
    assert [[problem.line, problem.reason, problem.column] for problem in problems] == expected["problems"]
    assert len(found) == expected["total"] == 10_000
    assert len(found) - len(problems) == expected["created"]


ROWS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "email": st.sampled_from(["a@example.com", "A@example.com", "b@example.com", "nobody", ""])
            | st.text(max_size=8),
            "name": st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
            "created_at": st.sampled_from(["2020-01-01", "soon", ""]),
            "complimentary_plan": st.sampled_from(["true", "maybe", ""]),
            "labels": st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        },
    ).filter(lambda row: "".join(row.values()).isprintable()),
    max_size=10,
)


@given(ROWS)
def test_every_record_is_a_reader_or_a_problem_and_no_address_is_taken_twice(rows: list[dict[str, str]]) -> None:
    file = file_of(*rows)
    found = list(read(file, spelled, AS_OF))
    readers = [outcome for outcome in found if isinstance(outcome, ImportedReader)]
    problems = [outcome for outcome in found if isinstance(outcome, Problem)]
    assert len(readers) + len(problems) == file.total
    assert len({reader.email_key for reader in readers}) == len(readers)
    assert {problem.reason for problem in problems} <= DETAILS.keys()
    assert found == list(read(file, spelled, AS_OF))
