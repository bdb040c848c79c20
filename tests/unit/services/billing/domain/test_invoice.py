"""Shows the identities of invoices and who may change one."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.errors import GatefoldError
from libs.money import Money, total
from services.billing.domain import invoice as invoices
from services.billing.domain.invoice import Invoice, InvoiceLine, InvoiceState
from services.billing.domain.periods import Period

AT = datetime(2026, 1, 1, tzinfo=UTC)
PERIOD = Period(AT, datetime(2026, 2, 1, tzinfo=UTC))


def issued(*amounts: int, currency: str = "EUR") -> Invoice:
    """An open invoice over lines of these amounts."""
    return invoices.issue(
        id=UUID(int=1),
        subscription_id=UUID(int=2),
        subject_id=UUID(int=3),
        lines=[InvoiceLine("Paper", 1, Money(amount, currency), PERIOD) for amount in amounts],
        currency=currency,
        period_number=1,
        issued_at=AT,
    )


@pytest.mark.case("billing-11")
@given(
    amount=st.integers(0, 10**9),
    weights=st.lists(st.integers(0, 1000), min_size=1, max_size=40).filter(any),
    currency=st.sampled_from(("EUR", "JPY", "KWD")),
)
def test_an_amount_split_over_lines_adds_up_to_the_invoice(amount: int, weights: list[int], currency: str) -> None:
    parts = Money(amount, currency).allocate(weights)
    invoice = issued(*(part.amount_minor for part in parts), currency=currency)
    assert invoice.total == Money(amount, currency)
    assert min(line.amount.amount_minor for line in invoice.lines) >= 0


@pytest.mark.case("billing-11")
def test_ten_euros_over_three_lines_add_up() -> None:
    assert issued(*(part.amount_minor for part in Money(1000, "EUR").allocate([1, 1, 1]))).total == Money(1000, "EUR")


@pytest.mark.case("billing-12")
@given(amounts=st.lists(st.integers(0, 10**9), min_size=1, max_size=20), end=st.sampled_from(("open", "paid", "void")))
def test_identities_hold_in_every_state(amounts: list[int], end: str) -> None:
    invoice = issued(*amounts)
    if end == "paid":
        invoice = invoices.pay(invoice, "000001", AT)
    if end == "void":
        invoice = invoices.void(invoice)
    assert total([line.amount for line in invoice.lines], "EUR") == invoice.total
    assert invoice.paid + invoice.due == (Money.zero("EUR") if end == "void" else invoice.total)


@pytest.mark.case("billing-12")
def test_a_paid_invoice_owes_nothing() -> None:
    paid = invoices.pay(issued(500, 250), "000001", AT)
    assert (paid.total, paid.paid, paid.due) == (Money(750, "EUR"), Money(750, "EUR"), Money(0, "EUR"))


def test_paid_invoice_cannot_be_voided() -> None:
    with pytest.raises(GatefoldError, match="invoice_not_open"):
        invoices.void(invoices.pay(issued(1), "000001", AT))


def test_void_invoice_cannot_be_paid() -> None:
    with pytest.raises(GatefoldError, match="invoice_not_open"):
        invoices.pay(invoices.void(issued(1)), "000001", AT)


def test_negative_line_is_refused() -> None:
    with pytest.raises(GatefoldError, match="line_negative"):
        issued(5, -1)


def test_invoice_without_lines_is_refused() -> None:
    with pytest.raises(GatefoldError, match="invoice_empty"):
        issued()


def test_an_invoice_whose_lines_do_not_add_up_cannot_exist() -> None:
    zero = Money.zero("EUR")
    with pytest.raises(GatefoldError, match="invoice_unbalanced"):
        Invoice(
            UUID(int=1), UUID(int=2), UUID(int=3), InvoiceState.OPEN,
            (InvoiceLine("Paper", 1, Money(2, "EUR"), PERIOD),), Money(1, "EUR"), zero, Money(1, "EUR"), 1, AT,
        )  # fmt: skip
