"""Shows what billing's tables refuse, whoever asks: the ledger, invoices, prices and payments under attack by SQL."""

import asyncpg
import pytest

from libs import postgres
from tests.integration.services.billing.conftest import House


async def refused(house: House, *statements: str) -> str | None:
    """Runs the statements in one transaction of the account; returns the constraint that they broke."""
    with pytest.raises((asyncpg.IntegrityConstraintViolationError, asyncpg.InsufficientPrivilegeError)) as caught:
        async with house.app.tenant(house.account, "attack") as conn:
            for statement in statements:
                await conn.execute(statement)
    if isinstance(caught.value, asyncpg.InsufficientPrivilegeError):
        return "not granted"
    return postgres.violated(caught.value)


async def refused_to_owner(house: House, owner_dsn: str, statement: str) -> str | None:
    conn = await asyncpg.connect(owner_dsn)
    try:
        with pytest.raises(asyncpg.CheckViolationError) as caught:
            await conn.execute(statement)
    finally:
        await conn.close()
    return caught.value.constraint_name


@pytest.fixture
async def paid(house: House) -> House:
    """An account with one paid subscription."""
    await house.subscribe(await house.price(), house.ids.new())
    return house


@pytest.mark.case("billing-13")
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_posting SET debit_minor = debit_minor + 1 WHERE debit_minor > 0",
        "DELETE FROM ledger_posting",
        "UPDATE ledger_entry SET kind = 'invoice'",
        "DELETE FROM ledger_entry",
        "TRUNCATE ledger_posting",
    ],
)
async def test_the_ledger_is_only_ever_appended_to(paid: House, statement: str) -> None:
    assert await refused(paid, statement) == "not granted"


@pytest.mark.case("billing-13")
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_posting SET debit_minor = debit_minor + 1 WHERE debit_minor > 0",
        "DELETE FROM ledger_posting",
        "TRUNCATE ledger_posting",
        "DELETE FROM ledger_entry",
        "TRUNCATE ledger_entry CASCADE",
    ],
)
async def test_not_even_the_owner_rewrites_the_ledger(paid: House, owner_dsn: str, statement: str) -> None:
    assert await refused_to_owner(paid, owner_dsn, statement) == "ledger_append_only"


_ENTRY = "INSERT INTO ledger_entry VALUES ('{account}', '{id}', 'payment', '{id}', '2026-01-01T00:00:00Z')"
_POSTING = "INSERT INTO ledger_posting VALUES ('{account}', '{id}', {place}, 'x', '{currency}', {debit}, {credit})"


@pytest.mark.case("billing-13")
@pytest.mark.parametrize(
    "postings",
    [
        [],
        [("EUR", 5, 0)],
        [("EUR", 5, 0), ("EUR", 0, 4)],
        [("EUR", 5, 0), ("USD", 0, 5)],
        [("EUR", 5, 0), ("EUR", 0, 5), ("EUR", 1, 0)],
    ],
)
async def test_an_entry_that_does_not_balance_does_not_commit(
    house: House, postings: list[tuple[str, int, int]]
) -> None:
    entry = house.ids.new()
    statements = [_ENTRY.format(account=house.account, id=entry)] + [
        _POSTING.format(account=house.account, id=entry, place=place, currency=currency, debit=debit, credit=credit)
        for place, (currency, debit, credit) in enumerate(postings, start=1)
    ]
    assert await refused(house, *statements) == "ledger_entry_balanced"


@pytest.mark.case("billing-13")
async def test_a_fact_is_entered_once(paid: House) -> None:
    copy = (
        "INSERT INTO ledger_entry SELECT account_id, gen_random_uuid(), kind, reference_id, occurred_at"
        " FROM ledger_entry"
    )
    assert await refused(paid, copy) == "ledger_entry_once"


@pytest.mark.case("billing-13")
async def test_balances_are_the_replay_of_all_entries(paid: House) -> None:
    replayed: dict[str, int] = {}
    for account, debit, credit in await paid.rows(
        "SELECT ledger_account, debit_minor, credit_minor FROM ledger_posting"
    ):
        replayed[account] = replayed.get(account, 0) + debit - credit
    assert replayed == await paid.balances()
    assert sum(replayed.values()) == 0


@pytest.mark.case("billing-8")
@pytest.mark.case("billing-12")
@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("UPDATE invoice SET total_minor = 1, paid_minor = 1", "invoice_immutable"),
        ("UPDATE invoice SET number = '000009'", "invoice_immutable"),
        ("UPDATE invoice SET state = 'open', number = NULL, paid_at = NULL, due_minor = 990", "invoice_immutable"),
        ("UPDATE invoice SET subject_id = gen_random_uuid()", "invoice_immutable"),
        ("DELETE FROM invoice", "not granted"),
        ("UPDATE invoice_line SET amount_minor = 1", "invoice_immutable"),
        ("DELETE FROM invoice_line", "not granted"),
        ("UPDATE price SET amount_minor = 1", "price_immutable"),
        ("UPDATE price SET currency = 'USD'", "price_immutable"),
        ("DELETE FROM payment", "not granted"),
        ("DELETE FROM subscription", "not granted"),
        ("UPDATE subscription SET state = 'ended'", "subscription_end"),
        ("UPDATE subscription SET period_end = period_start", "subscription_period"),
    ],
)
async def test_what_was_agreed_and_issued_stays(paid: House, statement: str, constraint: str) -> None:
    assert await refused(paid, statement) == constraint


@pytest.mark.case("billing-8")
@pytest.mark.parametrize("table", ["invoice", "invoice_line"])
async def test_not_even_the_owner_empties_the_invoices(paid: House, owner_dsn: str, table: str) -> None:
    assert await refused_to_owner(paid, owner_dsn, f"TRUNCATE {table} CASCADE") == "invoice_immutable"


_LINE = (
    "INSERT INTO invoice_line SELECT account_id, {invoice}, {place}, description, 1, {amount}, period_start, period_end"
    " FROM invoice_line"
)


@pytest.mark.case("billing-8")
@pytest.mark.parametrize("amount", [0, 10])
async def test_an_issued_invoice_gets_no_further_line(paid: House, amount: int) -> None:
    line = _LINE.format(invoice="invoice_id", place=2, amount=amount)
    assert await refused(paid, line) == "invoice_immutable"


@pytest.mark.case("billing-12")
@pytest.mark.parametrize("amount", [989, 991, None])
async def test_lines_that_do_not_add_up_do_not_commit(paid: House, amount: int | None) -> None:
    new = paid.ids.new()
    invoice = (
        "INSERT INTO invoice (account_id, id, subscription_id, subject_id, state, currency, total_minor, paid_minor,"
        f" due_minor, period_number, issued_at, sequence) SELECT account_id, '{new}', subscription_id, subject_id,"
        " 'open', currency, total_minor, 0, total_minor, 2, issued_at, 0 FROM invoice"
    )
    line = _LINE.format(invoice=f"'{new}'", place=1, amount=amount)
    assert await refused(paid, invoice, *([line] if amount is not None else [])) == "invoice_lines_total"


@pytest.mark.case("billing-12")
async def test_an_invoice_number_is_given_once(house: House) -> None:
    price = await house.price()
    await house.checkout(price, house.ids.new())
    await house.subscribe(price, house.ids.new())
    number = (
        "UPDATE invoice SET state = 'paid', paid_minor = total_minor, due_minor = 0, number = '000001',"
        " paid_at = issued_at WHERE state = 'open'"
    )
    assert await refused(house, number) == "invoice_number"


_PAYMENT = (
    "INSERT INTO payment (account_id, id, invoice_id, subscription_id, subject_id, connection_id, kind, amount_minor,"
    " currency, state, off_session, attempt, observed_second, observed_event, created_at, sequence)"
    " SELECT account_id, gen_random_uuid(), invoice_id, subscription_id, subject_id, connection_id, kind, {amount},"
    " {currency}, 'reserved', false, 2, 0, '', created_at, 0 FROM payment"
)


@pytest.mark.case("billing-12")
@pytest.mark.parametrize(("amount", "currency"), [("991", "currency"), ("990", "'USD'")])
async def test_a_payment_is_never_more_than_is_due(house: House, amount: str, currency: str) -> None:
    await house.checkout(await house.price(), house.ids.new())
    assert await refused(house, _PAYMENT.format(amount=amount, currency=currency)) == "payment_within_due"


async def test_nothing_more_is_paid_on_a_paid_invoice(paid: House) -> None:
    assert await refused(paid, _PAYMENT.format(amount="1", currency="currency")) == "payment_within_due"


async def test_two_payments_are_never_under_way_for_one_invoice(house: House) -> None:
    await house.checkout(await house.price(), house.ids.new())
    assert await refused(house, _PAYMENT.format(amount="990", currency="currency")) == "payment_under_way"


@pytest.mark.case("billing-14")
async def test_a_reader_has_one_live_subscription_to_a_product(paid: House) -> None:
    copy = (
        "INSERT INTO subscription SELECT (jsonb_populate_record(subscription,"
        " jsonb_build_object('id', gen_random_uuid()))).* FROM subscription"
    )
    assert await refused(paid, copy) == "subscription_live"


async def test_numbers_are_gapless_when_payments_fail_between(house: House) -> None:
    price = await house.price()
    for turn in range(6):
        subject = house.ids.new()
        checkout = await house.checkout(price, subject)
        await house.confirm(checkout, "4242424242424242" if turn % 2 else "4000000000000002")
    await house.deliver_all()
    numbers = await house.rows("SELECT number FROM invoice WHERE number IS NOT NULL ORDER BY number")
    assert [number for (number,) in numbers] == ["000001", "000002", "000003"]


async def test_each_account_counts_its_own_invoices(house: House) -> None:
    await house.subscribe(await house.price(), house.ids.new())
    house.account = house.ids.new()
    await house.connect()
    await house.subscribe(await house.price(), house.ids.new())
    assert await house.rows("SELECT number FROM invoice") == [("000001",)]
