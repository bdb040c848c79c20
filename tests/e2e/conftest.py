"""Owns the running product that end-to-end tests speak to over HTTP: one stack, with one publication on it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from infra.local.director import MailView
from infra.local.journey import Api, Cast, Journey, WebhookReceiver
from infra.local.settings import Place
from infra.local.stack import forget
from tests.support.stack import StackProcess


@pytest.fixture(scope="session")
def stack(run_directory: Path) -> Iterator[StackProcess]:
    """Every process up; passwords cheap to hash."""
    stack = StackProcess(run_directory / "stack")
    try:
        yield stack.start()
    finally:
        code = stack.stop()
        forget(Place(stack.place.state))
    assert code == 0


@pytest.fixture(scope="session")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture(scope="session")
def api(stack: StackProcess, session: aiohttp.ClientSession) -> Api:
    """The public API."""
    return Api(session, stack.endpoints["gateway"], patience_seconds=30)


@pytest.fixture(scope="session")
def stripe(stack: StackProcess, session: aiohttp.ClientSession) -> Api:
    """The Stripe simulator."""
    return Api(session, stack.endpoints["stripe"], patience_seconds=30)


@pytest.fixture(scope="session")
def mailbox(stack: StackProcess, session: aiohttp.ClientSession) -> MailView:
    """Mails that were sent."""
    return MailView(session, stack.endpoints["mail"])


@pytest.fixture(scope="session")
async def receiver() -> AsyncIterator[WebhookReceiver]:
    """The publisher's own server."""
    receiver = WebhookReceiver()
    await receiver.start()
    yield receiver
    await receiver.stop()


@pytest.fixture(scope="session")
async def journey(stack: StackProcess, api: Api, stripe: Api, mailbox: MailView, receiver: WebhookReceiver) -> Journey:
    """A journey whose publisher has set everything up; its readers have not come yet."""
    journey = Journey(stack.scene(), api, stripe, mailbox, receiver, name="e2e")
    await journey.run(journey.setting_up(), lambda line: None)
    return journey


@pytest.fixture
def cast(journey: Journey) -> Cast:
    """Accounts, keys and ids of that publisher."""
    return journey.cast
