"""Owns the publisher's own server in the journey: it takes webhooks and checks their signatures."""

import asyncio
import socket
from typing import Any

from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

SEEN_SECONDS = 0.1


class WebhookReceiver:
    """Listens on a free loopback port and keeps what came with a good signature, once for each `webhook-id`."""

    def __init__(self) -> None:
        self._secret = ""
        self._runner: web.AppRunner | None = None
        self.url = ""
        self.events: dict[str, Any] = {}
        """Verified bodies by `webhook-id`."""
        self.forged = 0

    def trust(self, secret: str) -> None:
        """Sets the endpoint's signing secret."""
        self._secret = secret

    async def start(self) -> None:
        """Begins to listen."""
        app = web.Application()
        app.router.add_post("/hooks", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(self._runner, listener).start()
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/hooks"

    async def stop(self) -> None:
        """Ends listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def wait(self, event_type: str, seconds: float, subject: str = "") -> Any:
        """Returns the first body of a type, and about a subscriber when one is given; raises TimeoutError for none."""
        async with asyncio.timeout(seconds):
            while True:
                for body in self.of(event_type):
                    if subject in ("", body["data"].get("subscriber_id")):
                        return body
                await asyncio.sleep(SEEN_SECONDS)

    def of(self, event_type: str) -> list[Any]:
        """All bodies of a type."""
        return [body for body in self.events.values() if body["type"] == event_type]

    async def _take(self, request: web.Request) -> web.Response:
        if not self._secret:
            return web.Response(status=503)
        body = await request.read()
        try:
            content = Webhook(self._secret).verify(body, dict(request.headers))
        except WebhookVerificationError:
            self.forged += 1
            return web.Response(status=401)
        self.events[request.headers["webhook-id"]] = content
        return web.Response(status=204)
