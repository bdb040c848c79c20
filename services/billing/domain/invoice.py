"""Owns invoices: lines as they were when issued, and the identities that hold at every moment."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from uuid import UUID

from libs import errors
from libs.money import Money, total
from services.billing.domain.catalogue import Offer
from services.billing.domain.periods import Period


class InvoiceState(Enum):
    """State of an invoice; only OPEN ever changes."""

    OPEN = "open"
    PAID = "paid"
    VOID = "void"


@dataclass(frozen=True)
class InvoiceLine:
    """What is owed for, in the words and at the price of the moment of issue."""

    description: str
    quantity: int
    amount: Money
    period: Period


@dataclass(frozen=True)
class Invoice:
    """An invoice. Σ lines = total, and total = paid + due while it is open or paid; a void one is owed nothing."""

    id: UUID
    subscription_id: UUID
    subject_id: UUID
    state: InvoiceState
    lines: tuple[InvoiceLine, ...]
    total: Money
    paid: Money
    due: Money
    period_number: int
    issued_at: datetime
    number: str | None = None
    paid_at: datetime | None = None
    sequence: int = 0

    def __post_init__(self) -> None:
        if total([line.amount for line in self.lines], self.total.currency) != self.total:
            raise errors.internal("invoice_unbalanced", "The lines of the invoice do not add up.")
        owed = Money.zero(self.total.currency) if self.state is InvoiceState.VOID else self.total
        if self.paid + self.due != owed:
            raise errors.internal("invoice_unbalanced", "What is paid and due is not the total of the invoice.")

    @property
    def period(self) -> Period:
        """What it pays for: from the first line's beginning to the last one's end."""
        return Period(min(line.period.start for line in self.lines), max(line.period.end for line in self.lines))

    @property
    def description(self) -> str:
        """What it is for, as the reader sees it."""
        return self.lines[0].description


def issue(
    *,
    id: UUID,  # noqa: A002 — the field's name
    subscription_id: UUID,
    subject_id: UUID,
    lines: Sequence[InvoiceLine],
    currency: str,
    period_number: int,
    issued_at: datetime,
) -> Invoice:
    """Returns an open invoice over these lines; raises `invalid` for no line or a negative one."""
    if not lines:
        raise errors.invalid("invoice_empty", "An invoice needs a line.")
    if any(line.amount.amount_minor < 0 for line in lines):
        raise errors.invalid("line_negative", "A line of an invoice is not negative.")
    owed = total([line.amount for line in lines], currency)
    return Invoice(
        id=id,
        subscription_id=subscription_id,
        subject_id=subject_id,
        state=InvoiceState.OPEN,
        lines=tuple(lines),
        total=owed,
        paid=Money.zero(currency),
        due=owed,
        period_number=period_number,
        issued_at=issued_at,
    )


def subscription_line(offer: Offer, amount: Money, period: Period, *, trial: bool) -> InvoiceLine:
    """Returns the line for one period of an offer; a trial costs nothing."""
    description = f"{offer.product.name}, {offer.plan.name}"
    if trial:
        return InvoiceLine(f"{description} (trial)", 1, Money.zero(amount.currency), period)
    return InvoiceLine(description, 1, amount, period)


def pay(invoice: Invoice, number: str, paid_at: datetime) -> Invoice:
    """Returns the invoice paid in full under its number; raises `precondition("invoice_not_open")`."""
    if invoice.state is not InvoiceState.OPEN:
        raise errors.precondition("invoice_not_open", "Only an open invoice can be paid.")
    return replace(
        invoice,
        state=InvoiceState.PAID,
        paid=invoice.total,
        due=Money.zero(invoice.total.currency),
        number=number,
        paid_at=paid_at,
    )


def void(invoice: Invoice) -> Invoice:
    """Returns the invoice withdrawn; raises `precondition("invoice_not_open")`, so that a paid one stands."""
    if invoice.state is not InvoiceState.OPEN:
        raise errors.precondition("invoice_not_open", "Only an open invoice can be withdrawn.")
    return replace(invoice, state=InvoiceState.VOID, due=Money.zero(invoice.total.currency))


def number_of(ordinal: int) -> str:
    """Returns the text of the n-th number of an account, from 1."""
    return f"{ordinal:06d}"
