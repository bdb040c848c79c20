"""One reader's whole journey over HTTP, every process up."""

from infra.local.journey import Journey, WebhookReceiver
from tests.support.audit import audit
from tests.support.stack import StackProcess


async def test_a_reader_comes_to_the_article_and_staff_see_it(
    stack: StackProcess, journey: Journey, receiver: WebhookReceiver
) -> None:
    said: list[str] = []
    await journey.run(journey.reading(), said.append)
    assert len(said) == len(journey.reading())
    assert await audit(stack, journey, receiver) == []
