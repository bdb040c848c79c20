"""Owns the statements on invoices, their lines and numbers, and on the ledger."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from libs import errors
from libs.money import Money
from libs.postgres import Connection, Record
from services.billing.domain.invoice import Invoice, InvoiceLine, InvoiceState
from services.billing.domain.ledger import Entry
from services.billing.domain.periods import Period
from services.billing.repository.rows import money

_COLUMNS = (
    "id, subscription_id, subject_id, state, number, currency, total_minor, paid_minor, due_minor, period_number,"
    " issued_at, paid_at, sequence"
)


@dataclass(frozen=True)
class Balance:
    """Sums of one ledger account in one currency."""

    ledger_account: str
    debits: Money
    credits: Money


class InvoiceRepository:
    """Invoices of one account at a time."""

    async def add(self, conn: Connection, account: UUID, invoice: Invoice) -> None:
        """Writes an open invoice with its lines."""
        await conn.execute(
            "INSERT INTO invoice (account_id, id, subscription_id, subject_id, state, currency, total_minor,"
            " paid_minor, due_minor, period_number, issued_at, sequence)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0)",
            account,
            invoice.id,
            invoice.subscription_id,
            invoice.subject_id,
            invoice.state.value,
            invoice.total.currency,
            invoice.total.amount_minor,
            invoice.paid.amount_minor,
            invoice.due.amount_minor,
            invoice.period_number,
            invoice.issued_at,
        )
        await conn.execute(
            "INSERT INTO invoice_line (account_id, invoice_id, position, description, quantity, amount_minor,"
            " period_start, period_end)"
            " SELECT $1, $2, place, description, quantity, amount_minor, period_start, period_end"
            " FROM unnest($3::text[], $4::integer[], $5::bigint[], $6::timestamptz[], $7::timestamptz[])"
            " WITH ORDINALITY AS line (description, quantity, amount_minor, period_start, period_end, place)",
            account,
            invoice.id,
            [line.description for line in invoice.lines],
            [line.quantity for line in invoice.lines],
            [line.amount.amount_minor for line in invoice.lines],
            [line.period.start for line in invoice.lines],
            [line.period.end for line in invoice.lines],
        )

    async def save(self, conn: Connection, account: UUID, invoice: Invoice) -> None:
        """Writes what changes when an invoice is paid or withdrawn."""
        await conn.execute(
            "UPDATE invoice SET state = $3, number = $4, paid_minor = $5, due_minor = $6, paid_at = $7, sequence = $8"
            " WHERE account_id = $1 AND id = $2",
            account,
            invoice.id,
            invoice.state.value,
            invoice.number,
            invoice.paid.amount_minor,
            invoice.due.amount_minor,
            invoice.paid_at,
            invoice.sequence,
        )

    async def get(self, conn: Connection, account: UUID, invoice_id: UUID, *, subject: UUID | None = None) -> Invoice:
        """Returns an invoice, of this reader only where one is given; raises `not_found("invoice_not_found")`."""
        row = await conn.fetchrow(
            f"SELECT {_COLUMNS} FROM invoice"  # noqa: S608 — a constant
            " WHERE account_id = $1 AND id = $2 AND ($3::uuid IS NULL OR subject_id = $3)",
            account,
            invoice_id,
            subject,
        )
        if row is None:
            raise errors.not_found("invoice_not_found", "There is no such invoice.")
        return (await self._with_lines(conn, account, [row]))[0]

    async def open_for_period(
        self, conn: Connection, account: UUID, subscription_id: UUID, period_number: int
    ) -> Invoice | None:
        """Returns the invoice for a period that was not withdrawn."""
        row = await conn.fetchrow(
            f"SELECT {_COLUMNS} FROM invoice WHERE account_id = $1 AND subscription_id = $2"  # noqa: S608 — a constant
            " AND period_number = $3 AND state <> 'void'",
            account,
            subscription_id,
            period_number,
        )
        return (await self._with_lines(conn, account, [row]))[0] if row is not None else None

    async def list_page(
        self,
        conn: Connection,
        account: UUID,
        subject: UUID | None,
        subscription_id: UUID | None,
        before: UUID | None,
        limit: int,
    ) -> list[Invoice]:
        """Returns invoices, newest first, of one reader and subscription where these are given."""
        rows = await conn.fetch(
            f"SELECT {_COLUMNS} FROM invoice WHERE account_id = $1 AND ($2::uuid IS NULL OR subject_id = $2)"  # noqa: S608
            " AND ($3::uuid IS NULL OR subscription_id = $3) AND ($4::uuid IS NULL OR id < $4)"
            " ORDER BY id DESC LIMIT $5",
            account,
            subject,
            subscription_id,
            before,
            limit,
        )
        return await self._with_lines(conn, account, rows)

    async def next_number(self, conn: Connection, account: UUID) -> int:
        """Returns the account's next ordinal. Rolled back with the transaction, so that no number is ever missing."""
        ordinal: int = await conn.fetchval(
            "INSERT INTO invoice_counter (account_id, last_number) VALUES ($1, 1)"
            " ON CONFLICT (account_id) DO UPDATE SET last_number = invoice_counter.last_number + 1"
            " RETURNING last_number",
            account,
        )
        return ordinal

    async def enter(self, conn: Connection, account: UUID, entry_id: UUID, entry: Entry) -> None:
        """Appends a ledger entry; a fact that was entered before breaks the constraint `ledger_entry_once`."""
        await conn.execute(
            "INSERT INTO ledger_entry (account_id, id, kind, reference_id, occurred_at) VALUES ($1, $2, $3, $4, $5)",
            account,
            entry_id,
            entry.kind.value,
            entry.reference_id,
            entry.occurred_at,
        )
        await conn.execute(
            "INSERT INTO ledger_posting (account_id, entry_id, position, ledger_account, currency, debit_minor,"
            " credit_minor) SELECT $1, $2, place, ledger_account, currency, debit, credit"
            " FROM unnest($3::text[], $4::text[], $5::bigint[], $6::bigint[])"
            " WITH ORDINALITY AS posting (ledger_account, currency, debit, credit, place)",
            account,
            entry_id,
            [posting.account.value for posting in entry.postings],
            [posting.debit.currency for posting in entry.postings],
            [posting.debit.amount_minor for posting in entry.postings],
            [posting.credit.amount_minor for posting in entry.postings],
        )

    async def balances(self, conn: Connection, account: UUID) -> list[Balance]:
        """Returns every ledger account's sums, added up from the first entry."""
        rows = await conn.fetch(
            "SELECT ledger_account, currency, sum(debit_minor)::bigint AS debits, sum(credit_minor)::bigint AS credits"
            " FROM ledger_posting WHERE account_id = $1 GROUP BY ledger_account, currency"
            " ORDER BY ledger_account, currency",
            account,
        )
        return [Balance(row["ledger_account"], money(row, "debits"), money(row, "credits")) for row in rows]

    async def _with_lines(self, conn: Connection, account: UUID, rows: Sequence[Record]) -> list[Invoice]:
        found = await conn.fetch(
            "SELECT invoice_id, description, quantity, amount_minor, period_start, period_end FROM invoice_line"
            " WHERE account_id = $1 AND invoice_id = ANY($2) ORDER BY invoice_id, position",
            account,
            [row["id"] for row in rows],
        )
        lines: dict[UUID, list[Record]] = defaultdict(list)
        for line in found:
            lines[line["invoice_id"]].append(line)
        return [_invoice(row, lines[row["id"]]) for row in rows]


def _invoice(row: Record, lines: Sequence[Record]) -> Invoice:
    return Invoice(
        id=row["id"],
        subscription_id=row["subscription_id"],
        subject_id=row["subject_id"],
        state=InvoiceState(row["state"]),
        lines=tuple(
            InvoiceLine(
                line["description"],
                line["quantity"],
                Money(line["amount_minor"], row["currency"]),
                Period(line["period_start"], line["period_end"]),
            )
            for line in lines
        ),
        total=money(row, "total_minor"),
        paid=money(row, "paid_minor"),
        due=money(row, "due_minor"),
        period_number=row["period_number"],
        issued_at=row["issued_at"],
        number=row["number"],
        paid_at=row["paid_at"],
        sequence=row["sequence"],
    )
