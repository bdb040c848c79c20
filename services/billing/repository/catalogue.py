"""Owns the statements on products, plans and prices."""

from datetime import datetime
from uuid import UUID

import asyncpg

from libs import errors, postgres
from libs.postgres import Connection, Record
from services.billing.domain.catalogue import Offer, Plan, Price, Product
from services.billing.domain.periods import Interval
from services.billing.repository.rows import money

_OFFERS = """
    SELECT product.id AS product_id, product.name AS product_name, product.features, product.external_id,
        product.created_at AS product_created_at,
        plan.id AS plan_id, plan.name AS plan_name, plan.interval, plan.interval_count, plan.trial_days,
        plan.created_at AS plan_created_at,
        price.id AS price_id, price.amount_minor, price.currency, price.created_at AS price_created_at,
        price.archived_at
    FROM price
    JOIN plan ON plan.account_id = price.account_id AND plan.id = price.plan_id
    JOIN product ON product.account_id = plan.account_id AND product.id = plan.product_id
"""


class CatalogueRepository:
    """Products, plans and prices of one account at a time."""

    async def add_product(self, conn: Connection, account: UUID, product: Product) -> None:
        """Raises `conflict("external_id_taken")`."""
        try:
            await conn.execute(
                "INSERT INTO product (account_id, id, name, features, external_id, created_at)"
                " VALUES ($1, $2, $3, $4, $5, $6)",
                account,
                product.id,
                product.name,
                list(product.features),
                product.external_id,
                product.created_at,
            )
        except asyncpg.UniqueViolationError as error:
            if postgres.violated(error) != "product_external_id":
                raise
            raise errors.conflict("external_id_taken", "Another product has this external id.") from error

    async def list_products(self, conn: Connection, account: UUID, before: UUID | None, limit: int) -> list[Product]:
        """Returns products, newest first, older than the one named by `before`."""
        rows = await conn.fetch(
            "SELECT id, name, features, external_id, created_at FROM product"
            " WHERE account_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
            account,
            before,
            limit,
        )
        return [
            Product(row["id"], row["name"], tuple(row["features"]), row["external_id"], row["created_at"])
            for row in rows
        ]

    async def add_plan(self, conn: Connection, account: UUID, plan: Plan) -> None:
        """Raises `not_found("product_not_found")`."""
        try:
            await conn.execute(
                "INSERT INTO plan (account_id, id, product_id, name, interval, interval_count, trial_days, created_at)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                account,
                plan.id,
                plan.product_id,
                plan.name,
                plan.interval.value,
                plan.interval_count,
                plan.trial_days,
                plan.created_at,
            )
        except asyncpg.ForeignKeyViolationError as error:
            raise errors.not_found("product_not_found", "There is no such product.") from error

    async def add_price(self, conn: Connection, account: UUID, price: Price) -> None:
        """Raises `not_found("plan_not_found")`."""
        try:
            await conn.execute(
                "INSERT INTO price (account_id, id, plan_id, amount_minor, currency, created_at)"
                " VALUES ($1, $2, $3, $4, $5, $6)",
                account,
                price.id,
                price.plan_id,
                price.amount.amount_minor,
                price.amount.currency,
                price.created_at,
            )
        except asyncpg.ForeignKeyViolationError as error:
            raise errors.not_found("plan_not_found", "There is no such plan.") from error

    async def archive_price(self, conn: Connection, account: UUID, price_id: UUID, at: datetime) -> Price:
        """Archives a price, or leaves it archived as it was; raises `not_found("price_not_found")`."""
        row = await conn.fetchrow(
            "UPDATE price SET archived_at = coalesce(archived_at, $3) WHERE account_id = $1 AND id = $2"
            " RETURNING id, plan_id, amount_minor, currency, created_at, archived_at",
            account,
            price_id,
            at,
        )
        if row is None:
            raise _price_not_found()
        return Price(row["id"], row["plan_id"], money(row), row["created_at"], row["archived_at"])

    async def list_offers(self, conn: Connection, account: UUID) -> list[Offer]:
        """Returns what is offered, products newest first, cheapest first within a product."""
        rows = await conn.fetch(
            f"{_OFFERS} WHERE price.account_id = $1 AND price.archived_at IS NULL"
            " ORDER BY product.id DESC, price.amount_minor, price.id LIMIT 1000",
            account,
        )
        return [_offer(row) for row in rows]

    async def get_offer(self, conn: Connection, account: UUID, price_id: UUID) -> Offer:
        """Returns the price with what it is for, archived or not; raises `not_found("price_not_found")`."""
        row = await conn.fetchrow(
            f"{_OFFERS} WHERE price.account_id = $1 AND price.id = $2",
            account,
            price_id,
        )
        if row is None:
            raise _price_not_found()
        return _offer(row)


def _price_not_found() -> errors.GatefoldError:
    return errors.not_found("price_not_found", "There is no such price.")


def _offer(row: Record) -> Offer:
    return Offer(
        Product(
            row["product_id"],
            row["product_name"],
            tuple(row["features"]),
            row["external_id"],
            row["product_created_at"],
        ),
        Plan(
            row["plan_id"],
            row["product_id"],
            row["plan_name"],
            Interval(row["interval"]),
            row["interval_count"],
            row["trial_days"],
            row["plan_created_at"],
        ),
        Price(row["price_id"], row["plan_id"], money(row), row["price_created_at"], row["archived_at"]),
    )
