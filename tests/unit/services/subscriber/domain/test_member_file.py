"""Reading a member file as a whole: encodings, headers, quoting, and the line each record begins on."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.subscriber.domain.member_file import COLUMNS, MOST_RECORDS, MemberFile, UnreadableFileError, opened

# What a cell can hold; surrogates cannot be encoded, and NUL is a matter of its own.
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def lines(file: MemberFile) -> list[int]:
    return [record.line for record in file.records()]


def cells(file: MemberFile) -> list[list[str]]:
    return [record.cells for record in file.records()]


def test_columns_are_found_in_any_order_and_spelling_and_others_are_named() -> None:
    file = opened(b"Deleted At, Created At ,EMAIL,Labels\n,2020-01-01,mei@example.com,VIP\n")
    assert file.columns == {"created_at": 1, "email": 2, "labels": 3}
    assert file.ignored == ("deleted_at",)
    assert (file.width, file.total) == (4, 1)


def test_a_byte_order_mark_is_not_part_of_the_first_column() -> None:
    assert opened("\ufeffemail\nmei@example.com\n".encode()).columns == {"email": 0}


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_any_way_and_records_know_theirs(ending: str) -> None:
    text = ending.join(["email,note", "a,1", "", 'b,"2', '3"', "   ", ",", "c,4", ""])
    file = opened(text.encode())
    assert lines(file) == [2, 4, 8]
    assert cells(file)[1] == ["b", f"2{ending}3"]
    assert file.total == 3


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_the_one_that_makes_email_a_column(delimiter: str) -> None:
    file = opened(f"name{delimiter}email\nMei{delimiter}a;b,c\td@example.com\n".encode())
    assert file.delimiter == delimiter
    assert cells(file)[0][0] == "Mei"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "file_empty"),
        (b" \r\n\n", "file_empty"),
        (b"\xef\xbb\xbf", "file_empty"),
        (b"name,note\nMei,x\n", "column_missing"),
        (b",,,\nmei@example.com\n", "column_missing"),
        (b",,\n , \n", "column_missing"),
        (b"e-mail\nmei@example.com\n", "column_missing"),
        (b"email,name, EMAIL\n", "column_twice"),
        (b"email" + b",x" * 200, "columns_too_many"),
        ("email\nmei@example.com\n".encode("utf-16"), "encoding_unsupported"),
        ("email\nmei@example.com\n".encode("utf-16-be"), "encoding_unsupported"),
        ("email\nmei@example.com\n".encode("utf-32"), "encoding_unsupported"),
        ("email,name\nmei@example.com,Jürgen\n".encode("latin-1"), "encoding_unsupported"),
        (b'email,name\nmei@example.com,"Mei\n', "csv_malformed"),
        (b'email,name\nmei@example.com,"Mei"x\n', "csv_malformed"),
        (b"email\n" + b"a" * 140_000 + b"\n", "csv_malformed"),
        (b'"email\n', "csv_malformed"),
    ],
)
def test_an_unreadable_file_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableFileError) as raised:
        opened(data)
    assert raised.value.reason == reason
    assert raised.value.detail.endswith(".")
    assert "mei" not in raised.value.detail.lower()


def test_a_fault_is_named_by_its_line() -> None:
    with pytest.raises(UnreadableFileError, match="line 4") as raised:
        opened(b'email\na\n\n"b\nc\n')
    assert raised.value.reason == "csv_malformed"
    with pytest.raises(UnreadableFileError, match="line 3"):
        opened(b"email\na\n\xff\n")


def test_more_records_than_an_import_takes_are_refused() -> None:
    with pytest.raises(UnreadableFileError) as raised:
        opened(b"email\n" + b"a\n" * (MOST_RECORDS + 1))
    assert raised.value.reason == "records_too_many"


@given(
    st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
)
def test_whatever_is_written_as_csv_is_read_back(rows: list[list[str]], ending: str, sparing: bool, bom: bool) -> None:
    text = io.StringIO(newline="")
    # Before Python 3.13 the writer leaves a carriage return unquoted, which no reader could tell from the line's end.
    minimal = sparing and not any("\r" in cell for row in rows for cell in row)
    writer = csv.writer(text, lineterminator=ending, quoting=csv.QUOTE_MINIMAL if minimal else csv.QUOTE_ALL)
    writer.writerow(["email", "note"])
    begun = []
    for row in rows:
        begun.append(text.getvalue().replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1)
        writer.writerow(row)
    file = opened(("\ufeff" if bom else "").encode() + text.getvalue().encode())
    expected = [
        (line, row) for line, row in zip(begun, rows, strict=True) if any(cell and not cell.isspace() for cell in row)
    ]
    assert [(record.line, record.cells) for record in file.records()] == expected
    assert file.total == len(expected)


@given(st.binary(max_size=200))
def test_no_bytes_at_all_raise_anything_but_unreadable(data: bytes) -> None:
    for beginning in (b"", b"email,name\n"):
        try:
            file = opened(beginning + data)
        except UnreadableFileError:
            continue
        assert len(cells(file)) == file.total
        assert set(file.columns) <= set(COLUMNS)
