"""Owns the double-entry ledger: which entries a fact makes, and that each of them balances."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from uuid import UUID

from libs import errors
from libs.money import Money


class LedgerAccount(Enum):
    """The ledger accounts of a publisher."""

    ACCOUNTS_RECEIVABLE = "accounts_receivable"
    """What readers owe."""
    PROCESSOR_RECEIVABLE = "processor_receivable"
    """What the payment provider took and holds for the publisher."""
    DEFERRED_REVENUE = "deferred_revenue"
    """What was invoiced for periods that are to be delivered."""
    UNAPPLIED_PAYMENTS = "unapplied_payments"
    """What readers paid without an open invoice; owed back to them."""


class EntryKind(Enum):
    """The facts that are entered; each at most once for what it refers to."""

    INVOICE = "invoice"
    PAYMENT = "payment"


@dataclass(frozen=True)
class Posting:
    """One side of an entry: either a debit or a credit, above zero."""

    account: LedgerAccount
    debit: Money
    credit: Money

    def __post_init__(self) -> None:
        if min(self.debit.amount_minor, self.credit.amount_minor) != 0 or self.debit == self.credit:
            raise errors.internal("posting_invalid", "A posting is either a debit or a credit.")


@dataclass(frozen=True)
class Entry:
    """A fact in the ledger. Σ debits = Σ credits in each currency."""

    kind: EntryKind
    reference_id: UUID
    """The invoice or payment that it is about."""
    occurred_at: datetime
    postings: tuple[Posting, ...]

    def __post_init__(self) -> None:
        balance: dict[str, int] = defaultdict(int)
        for posting in self.postings:
            balance[posting.debit.currency] += posting.debit.amount_minor - posting.credit.amount_minor
        if len(self.postings) < 2 or any(balance.values()):
            raise errors.internal("entry_unbalanced", "Debits and credits of a ledger entry are not equal.")


def invoice_paid(invoice_id: UUID, payment_id: UUID | None, amount: Money, at: datetime) -> list[Entry]:
    """Returns the entries of an invoice that was paid: what was owed for, and what was taken. None for nothing."""
    if not amount:
        return []
    entries = [_entry(EntryKind.INVOICE, invoice_id, at, LedgerAccount.ACCOUNTS_RECEIVABLE,
                      LedgerAccount.DEFERRED_REVENUE, amount)]  # fmt: skip
    if payment_id is not None:
        entries.append(_entry(EntryKind.PAYMENT, payment_id, at, LedgerAccount.PROCESSOR_RECEIVABLE,
                              LedgerAccount.ACCOUNTS_RECEIVABLE, amount))  # fmt: skip
    return entries


def payment_unapplied(payment_id: UUID, amount: Money, at: datetime) -> list[Entry]:
    """Returns the entry of money that came in after its invoice was withdrawn or paid otherwise."""
    return [_entry(EntryKind.PAYMENT, payment_id, at, LedgerAccount.PROCESSOR_RECEIVABLE,
                   LedgerAccount.UNAPPLIED_PAYMENTS, amount)]  # fmt: skip


def _entry(
    kind: EntryKind, reference_id: UUID, at: datetime, debit: LedgerAccount, credit: LedgerAccount, amount: Money
) -> Entry:
    nothing = Money.zero(amount.currency)
    return Entry(kind, reference_id, at, (Posting(debit, amount, nothing), Posting(credit, nothing, amount)))
