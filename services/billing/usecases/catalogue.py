"""Owns adding to, archiving and listing what a publisher sells."""

from uuid import UUID

from gatefold.billing.v1 import catalogue_pb2

from libs import idempotency, ids
from libs.caller import Caller
from libs.clock import Clock
from libs.ids import IdSource
from libs.money import Money
from libs.postgres import Database
from services.billing.domain import catalogue
from services.billing.domain.catalogue import Plan, Price, Product
from services.billing.domain.periods import Interval
from services.billing.repository.catalogue import CatalogueRepository
from services.billing.repository.rows import before, page_size
from services.billing.usecases import messages

_SERVICE = "gatefold.billing.v1.CatalogueService"


class Catalogue:
    """Products, plans, prices and offers."""

    def __init__(self, app: Database, repository: CatalogueRepository, clock: Clock, id_source: IdSource) -> None:
        self._app = app
        self._at = repository
        self._clock = clock
        self._ids = id_source

    async def create_product(
        self, caller: Caller, request: catalogue_pb2.CreateProductRequest
    ) -> catalogue_pb2.Product:
        """Raises `conflict("external_id_taken")` and what domain.catalogue.check_product raises."""
        account = caller.require_account()
        catalogue.check_product(request.name, tuple(request.features))
        method = f"{_SERVICE}/CreateProduct"
        product = Product(
            self._ids.new(),
            request.name,
            tuple(request.features),
            request.external_id or None,
            self._clock.now(account),
        )
        async with self._app.tenant(account, "create_product") as conn:
            claim = await idempotency.claim(conn, caller, method, request, clock=self._clock)
            if claim.replay is not None:
                return catalogue_pb2.Product.FromString(claim.replay)
            await self._at.add_product(conn, account, product)
            answer = messages.product(product)
            await idempotency.record(conn, caller, method, answer)
        return answer

    async def list_products(self, account: UUID, limit: int, cursor: str) -> catalogue_pb2.ListProductsResponse:
        """Returns a page of products, newest first."""
        size = page_size(limit)
        async with self._app.tenant(account, "list_products", read_only=True) as conn:
            found = await self._at.list_products(conn, account, before("prod", cursor), size + 1)
        more = ids.encode("prod", found[size - 1].id) if len(found) > size else ""
        return catalogue_pb2.ListProductsResponse(
            data=[messages.product(each) for each in found[:size]], next_cursor=more
        )

    async def create_plan(
        self, caller: Caller, request: catalogue_pb2.CreatePlanRequest, product_id: UUID, interval: Interval
    ) -> catalogue_pb2.Plan:
        """Raises `not_found("product_not_found")` and what domain.catalogue.check_plan raises."""
        account = caller.require_account()
        count = request.interval_count or 1
        catalogue.check_plan(request.name, interval, count, request.trial_days)
        method = f"{_SERVICE}/CreatePlan"
        plan = Plan(
            self._ids.new(),
            product_id,
            request.name,
            interval,
            count,
            request.trial_days,
            self._clock.now(account),
        )
        async with self._app.tenant(account, "create_plan") as conn:
            claim = await idempotency.claim(conn, caller, method, request, clock=self._clock)
            if claim.replay is not None:
                return catalogue_pb2.Plan.FromString(claim.replay)
            await self._at.add_plan(conn, account, plan)
            answer = messages.plan(plan)
            await idempotency.record(conn, caller, method, answer)
        return answer

    async def create_price(
        self, caller: Caller, request: catalogue_pb2.CreatePriceRequest, plan_id: UUID
    ) -> catalogue_pb2.Price:
        """Raises `not_found("plan_not_found")` and what domain.catalogue.check_price raises."""
        account = caller.require_account()
        amount = Money.of(request.amount)
        catalogue.check_price(amount)
        method = f"{_SERVICE}/CreatePrice"
        price = Price(self._ids.new(), plan_id, amount, self._clock.now(account), None)
        async with self._app.tenant(account, "create_price") as conn:
            claim = await idempotency.claim(conn, caller, method, request, clock=self._clock)
            if claim.replay is not None:
                return catalogue_pb2.Price.FromString(claim.replay)
            await self._at.add_price(conn, account, price)
            answer = messages.price(price)
            await idempotency.record(conn, caller, method, answer)
        return answer

    async def archive_price(self, account: UUID, price_id: UUID) -> catalogue_pb2.Price:
        """Takes a price off the offers; subscriptions and invoices keep what they were agreed at."""
        async with self._app.tenant(account, "archive_price") as conn:
            price = await self._at.archive_price(conn, account, price_id, self._clock.now(account))
        return messages.price(price)

    async def list_offers(self, account: UUID) -> catalogue_pb2.ListOffersResponse:
        """Returns what readers can subscribe to now."""
        async with self._app.tenant(account, "list_offers", read_only=True) as conn:
            found = await self._at.list_offers(conn, account)
        return catalogue_pb2.ListOffersResponse(data=[messages.offer(each) for each in found])
