"""Shows that every ledger entry balances."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.errors import GatefoldError
from libs.money import Money
from services.billing.domain import ledger
from services.billing.domain.ledger import Entry, EntryKind, LedgerAccount, Posting

AT = datetime(2026, 1, 1, tzinfo=UTC)
INVOICE, PAYMENT = UUID(int=1), UUID(int=2)
ZERO = Money.zero("EUR")


@pytest.mark.case("billing-13")
@given(amount=st.integers(1, 10**12), currency=st.sampled_from(("EUR", "JPY", "KWD")))
def test_entries_of_a_paid_invoice_balance_and_leave_nothing_owed(amount: int, currency: str) -> None:
    entries = ledger.invoice_paid(INVOICE, PAYMENT, Money(amount, currency), AT)
    balances: dict[LedgerAccount, int] = dict.fromkeys(LedgerAccount, 0)
    for posting in (each for entry in entries for each in entry.postings):
        balances[posting.account] += posting.debit.amount_minor - posting.credit.amount_minor
    assert sum(balances.values()) == 0
    assert balances[LedgerAccount.ACCOUNTS_RECEIVABLE] == 0
    assert balances[LedgerAccount.PROCESSOR_RECEIVABLE] == amount == -balances[LedgerAccount.DEFERRED_REVENUE]


@pytest.mark.case("billing-13")
def test_money_that_comes_too_late_is_owed_to_the_reader() -> None:
    (entry,) = ledger.payment_unapplied(PAYMENT, Money(990, "EUR"), AT)
    assert entry.reference_id == PAYMENT
    assert [posting.account for posting in entry.postings if posting.credit] == [LedgerAccount.UNAPPLIED_PAYMENTS]


def test_nothing_is_entered_for_nothing() -> None:
    assert ledger.invoice_paid(INVOICE, None, ZERO, AT) == []


def test_an_unbalanced_entry_cannot_exist() -> None:
    one, two = Money(1, "EUR"), Money(2, "EUR")
    postings = (
        Posting(LedgerAccount.ACCOUNTS_RECEIVABLE, one, ZERO),
        Posting(LedgerAccount.DEFERRED_REVENUE, ZERO, two),
    )
    with pytest.raises(GatefoldError, match="entry_unbalanced"):
        Entry(EntryKind.INVOICE, INVOICE, AT, postings)


@pytest.mark.parametrize(("debit", "credit"), [(1, 1), (0, 0), (-1, 0)])
def test_a_posting_is_one_side_above_zero(debit: int, credit: int) -> None:
    with pytest.raises(GatefoldError, match="posting_invalid"):
        Posting(LedgerAccount.ACCOUNTS_RECEIVABLE, Money(debit, "EUR"), Money(credit, "EUR"))
