"""Generates ghost_members.csv, a member export in Ghost's format with the dirt that real exports have.

Run it to write the file and, beside it, ghost_members.expected.json: what an importer must make of it, as counted while
the dirt was planted. The same seed gives the same bytes. Nobody in it exists: surnames are made of syllables, addresses
lie under names that are reserved for examples (RFC 2606).
"""

import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

SEED = 20260101
MEMBERS = 10_000
HEADER = (
    "id,email,name,note,subscribed_to_emails,complimentary_plan,stripe_customer_id,created_at,deleted_at,labels,tiers"
)
FOLDER = Path(__file__).resolve().parent

# fmt: off
GIVEN = (
    "Amina", "Anna", "Bruno", "Chloé", "Daniela", "Elif", "Emeka", "Fatou", "Giulia", "Hiroshi", "Ines", "Jamal",
    "Jana", "Jürgen", "Kofi", "Lena", "Mateo", "Mei", "Nadia", "Noor", "Olga", "Pablo", "Priya", "Rafael",
    "Sanne", "Søren", "Tariq", "Ulla", "Wei", "Yara", "Zoë", "Łukasz", "Ülkü", "محمد", "فاطمة", "أحمد",
    "ليلى", "愛子", "伟", "Дарья", "Νίκη",
)
SYLLABLES = (
    "ba", "be", "do", "du", "fe", "gi", "ha", "ka", "ki", "lo", "lu", "ma",
    "me", "na", "no", "pa", "ra", "ri", "sa", "se", "ta", "te", "ti", "vo",
    "wa", "ze", "zu",
)
ARABIC_SYLLABLES = (
    "با", "تو", "رو", "سي", "كا", "لم", "نو", "دي",
)
# fmt: on
DOMAINS = ("example.com", "example.org", "example.net", "mail.example", "post.example.com", "news.example.org")
LABELS = ("VIP", "Founding member", "Conference 2023", "Print & web", "Schüler", "قرّاء", "early-bird", "Région Sud")
NOTES = (
    "Called about the invoice.",
    "Asked for a pause;\r\nback in spring.",
    'Prefers the "weekend" edition, not the daily one',
    "Moved house.\nNew address to follow.\n\nCall again.",
    "Loves the puzzle page 🧩🎉",
    "=SUM(A1:A9) typed by mistake",
    "يرغب في النسخة المطبوعة",
    'Wrote: "Where\'s my paper, please?"',
)
TIERS = ("Bronze", "Silver", "Gold", "Friends, patrons")
BAD_ADDRESSES = (
    "{local}",
    "{local}@",
    "@example.com",
    "{local}@@example.com",
    "{local} {local}@example.com",
    "{local}@example",
    "{local}..x@example.com",
    "{local}@example..com",
    "{local}@example.com,",
    "{local} at example.com",
    "<{local}@example.com>",
    "{local}@-example.com",
    "{local}@example.com; {local}@example.org",
    "{local}@[192.0.2.1]",
)


@dataclass
class Expected:
    """What becomes of the file."""

    total: int = 0
    created: int = 0
    duplicates: int = 0
    subscribed: int = 0
    complimentary: int = 0
    unnamed: int = 0
    refused_by_reason: dict[str, int] = field(default_factory=dict)
    problems: list[tuple[int, str, str]] = field(default_factory=list)


class Export:
    """The file being written, with the line it has come to."""

    def __init__(self) -> None:
        self.parts = [HEADER + "\r\n"]
        self.line = 2

    def write(self, text: str) -> int:
        """Appends one record or empty line; returns the line it begins on."""
        begun = self.line
        self.parts.append(text + "\r\n")
        self.line += 1 + text.replace("\r\n", "\n").count("\n")
        return begun


def quoted(cell: str) -> str:
    """Quotes a cell as Ghost's export does: where it has to be, or begins or ends with a blank."""
    if any(mark in cell for mark in ',"\r\n') or cell != cell.strip(" "):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def guarded(cell: str) -> str:
    """Puts the apostrophe before what a spreadsheet would calculate."""
    return "'" + cell if cell.startswith(("=", "+", "-", "@")) else cell


class Generator:
    """Makes members one after another."""

    def __init__(self) -> None:
        self.random = random.Random(SEED)
        self.number = 0

    def surname(self) -> str:
        """Returns a name that nobody has."""
        if self.random.random() < 0.06:
            return "".join(self.random.choices(ARABIC_SYLLABLES, k=3))
        return "".join(self.random.choices(SYLLABLES, k=self.random.randint(2, 4))).capitalize()

    def member(self) -> dict[str, str]:
        """Returns a clean member, whose address is no one else's."""
        chance = self.random.random
        self.number += 1
        local = (
            "".join(self.random.choices(SYLLABLES, k=3))
            + self.random.choice((".", "-", "_", "+", ""))
            + str(self.number)
        )
        name = "" if chance() < 0.12 else f"{self.random.choice(GIVEN)} {self.surname()}"
        comped = chance() < 0.03
        paid = not comped and chance() < 0.2
        created = datetime(2018, 3, 1, tzinfo=UTC) + timedelta(milliseconds=self.random.randrange(7 * 365 * 86_400_000))
        return {
            "id": f"{self.random.getrandbits(96):024x}",
            "email": f"{local}@{self.random.choice(DOMAINS)}",
            "name": name,
            "note": guarded(self.random.choice(NOTES)) if chance() < 0.15 else "",
            "subscribed_to_emails": "true" if chance() < 0.8 else "false",
            "complimentary_plan": "true" if comped else "false",
            "stripe_customer_id": f"cus_{self.random.getrandbits(64):016x}" if paid else "",
            "created_at": created.strftime("%Y-%m-%dT%H:%M:%S.") + f"{created.microsecond // 1000:03d}Z",
            "deleted_at": "",
            "labels": ",".join(sorted(set(self.random.choices(LABELS, k=self.random.randint(1, 3)))))
            if chance() < 0.3
            else "",
            "tiers": self.random.choice(TIERS) if comped or paid else "",
        }

    def untidy(self, member: dict[str, str]) -> dict[str, str]:
        """Returns the member with blemishes that change nothing of what it says."""
        chance = self.random.random()
        if chance < 0.03:
            member["email"] = f"  {member['email']} "
        elif chance < 0.04:
            member["email"] = f"\u200b{member['email']}\u00a0"
        elif chance < 0.06 and member["name"]:
            member["name"] = member["name"].replace(" ", "\n", 1)
        elif chance < 0.08 and member["name"]:
            member["name"] += " 🌟  "
        elif chance < 0.09:
            member["subscribed_to_emails"] = member["subscribed_to_emails"].upper()
        elif chance < 0.1:
            member["created_at"] = member["created_at"][:10]
        return member


def planted(plan: dict[str, int], generator: Generator) -> list[str]:
    """Returns what each of the 10,000 records is to be: `clean` or a kind of dirt, at places that the seed decides."""
    kinds = [kind for kind, count in plan.items() for _ in range(count)]
    kinds += ["clean"] * (MEMBERS - len(kinds))
    # The first fifty stay clean, so that there is something to repeat.
    head, tail = ["clean"] * 50, kinds[:-50]
    generator.random.shuffle(tail)
    return head + tail


PLAN = {
    "duplicate": 212,
    "email_missing": 31,
    "email_invalid": 83,
    "created_at_invalid": 17,
    "boolean_invalid": 12,
    "too_long": 9,
    "labels_too_many": 3,
    "character_invalid": 5,
    "columns_surplus": 7,
    "refused_then_clean": 4,
}


def generate() -> tuple[bytes, Expected]:
    """Returns the file and what becomes of it."""
    generator, export, expected = Generator(), Export(), Expected()
    taken: list[str] = []
    later: list[str] = []
    for kind in planted(PLAN, generator):
        if generator.random.random() < 0.004:
            export.write(generator.random.choice(("", "   ", ",,,,,,,,,,")))
        expected.total += 1
        member = generator.untidy(generator.member())
        problem = spoil(kind, member, generator, taken)
        if kind == "refused_then_clean":
            later.append(member["email"])
        elif kind == "clean" and later and generator.random.random() < 0.02:
            # An address whose first record was refused is no duplicate.
            member["email"] = later.pop()
        text = record(member, kind, generator)
        line = export.write(text)
        if problem is None:
            expected.created += 1
            expected.subscribed += member["subscribed_to_emails"].lower() == "true"
            expected.complimentary += member["complimentary_plan"] == "true"
            expected.unnamed += not member["name"].strip()
            taken.append(member["email"].strip(" \u200b\u00a0"))
        else:
            reason, column = problem
            expected.problems.append((line, reason, column))
            if reason == "duplicate":
                expected.duplicates += 1
            else:
                expected.refused_by_reason[reason] = expected.refused_by_reason.get(reason, 0) + 1
    if later:
        raise AssertionError("an address that was refused first has not come again")
    return b"\xef\xbb\xbf" + "".join(export.parts).encode(), expected


def spoil(kind: str, member: dict[str, str], generator: Generator, taken: list[str]) -> tuple[str, str] | None:
    """Plants the dirt in the member; returns the reason and the column it must be found with, None for none."""
    choice = generator.random.choice
    local = f"bad{generator.number}"
    match kind:
        case "duplicate":
            address = choice(taken)
            member["email"] = choice((address.upper(), address.title(), f" {address}", address.swapcase()))
            return "duplicate", "email"
        case "email_missing":
            member["email"] = choice(("", "   ", "\u200b"))
            return kind, "email"
        case "email_invalid":
            member["email"] = choice(BAD_ADDRESSES).format(local=local)
            return kind, "email"
        case "created_at_invalid" | "refused_then_clean":
            member["created_at"] = choice(("31/12/2021", "yesterday", "2021-13-01", "2199-01-01", "1620000000"))
            return "created_at_invalid", "created_at"
        case "boolean_invalid":
            column = choice(("subscribed_to_emails", "complimentary_plan"))
            member[column] = choice(("maybe", "ja", "2", "-"))
            return kind, column
        case "too_long":
            column, length = choice((("name", 201), ("note", 2001), ("tiers", 501)))
            member[column] = "ä" * length
            return kind, column
        case "labels_too_many":
            member["labels"] = ",".join(f"label {number}" for number in range(51))
            return kind, "labels"
        case "character_invalid":
            member["name"] = choice(("Bell\aRinger", "Nul\0l", "Esc\x1b[31m"))
            return kind, "name"
        case "columns_surplus":
            return kind, ""
    return None


def record(member: dict[str, str], kind: str, generator: Generator) -> str:
    """Returns the member's line or lines."""
    cells = [quoted(member[column]) for column in HEADER.split(",")]
    if kind == "columns_surplus":
        # A comma that somebody's editor left unquoted.
        cells[2] = "Bar, Foo, Jr."
    elif kind == "clean" and not member["labels"] and not member["tiers"] and generator.random.random() < 0.1:
        # Spreadsheets leave out what is empty at the end.
        cells = cells[:-2]
    return ",".join(cells)


def as_document(expected: Expected) -> str:
    """Returns what becomes of the file as JSON; one problem a line keeps differences readable."""
    document = {
        **{key: value for key, value in vars(expected).items() if key != "problems"},
        "refused": sum(expected.refused_by_reason.values()),
        "updated": 0,
        "unchanged": 0,
        "problems": [],
    }
    text = json.dumps(document, indent=2, sort_keys=True)
    lines = ",\n".join("    " + json.dumps(problem) for problem in expected.problems)
    return text.replace('"problems": []', f'"problems": [\n{lines}\n  ]') + "\n"


def main() -> None:
    """Writes both files."""
    data, expected = generate()
    (FOLDER / "ghost_members.csv").write_bytes(data)
    (FOLDER / "ghost_members.expected.json").write_text(as_document(expected))


if __name__ == "__main__":
    main()
