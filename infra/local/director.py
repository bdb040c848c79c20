"""Owns what is done beside a stack that has just started: the demo's journey, or seeding and showing a publication."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from infra.local import memory, publication
from infra.local.journey import Api, Journey, JourneyError, Scene, WebhookReceiver
from infra.local.private_file import write_private
from infra.local.readiness import NotReadyError
from infra.local.settings import ROOT
from infra.local.stack import Running

STRIPE_SECRET_KEY = "sk_test_sim_localpaper"  # noqa: S105 — of the simulator
STRIPE_PUBLISHABLE_KEY = "pk_test_sim_localpaper"
PATIENCE_SECONDS = 30.0
MEMBERS = ROOT / "tests" / "data" / "ghost_members.csv"
EXPECTED = ROOT / "tests" / "data" / "ghost_members.expected.json"


class MailView:
    """The mail sink, as the journey reads it."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def wait(self, to: str, subject: str, seconds: float) -> str:
        """Returns the text of the newest mail to an address whose subject begins so; raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while True:
                query = {"to": to, "subject": subject, "wait": "5"}
                try:
                    async with self._session.get(f"{self._url}/mails", params=query) as response:
                        found = (await response.json())["data"]
                except aiohttp.ClientError:
                    await asyncio.sleep(0.2)
                    continue
                if found:
                    return str(found[0]["text"])


@dataclass(frozen=True)
class Tools:
    """What a director works with."""

    journey: Journey
    api: Api
    stripe: Api


@asynccontextmanager
async def tools(running: Running, name: str) -> AsyncIterator[Tools]:
    """Opens what a journey needs, within the block."""
    ports, secrets = running.ports, running.secrets
    token = running.place.bootstrap_token
    scene = Scene(
        gateway=ports.gateway_url,
        stripe=ports.stripe_url,
        stripe_secret_key=STRIPE_SECRET_KEY,
        stripe_publishable_key=STRIPE_PUBLISHABLE_KEY,
        bootstrap_token=token.read_text().strip() if token.exists() else "",
        members=MEMBERS,
        expected=EXPECTED,
        operator_password=secrets["operator_password"],
        owner_password=secrets["owner_password"],
    )
    receiver = WebhookReceiver()
    await receiver.start()
    try:
        async with aiohttp.ClientSession() as session:
            api = Api(session, ports.gateway_url, patience_seconds=PATIENCE_SECONDS)
            stripe = Api(session, ports.stripe_url, patience_seconds=PATIENCE_SECONDS)
            mailbox = MailView(session, ports.mail_url)
            yield Tools(Journey(scene, api, stripe, mailbox, receiver, name=name), api, stripe)
    finally:
        await receiver.stop()


def demo(running: Running) -> int:
    """Runs the journey and prints its figures; returns an exit code."""

    async def walk() -> None:
        ready = running.progress.seconds
        show = running.progress.show
        async with tools(running, "demo") as opened:
            journey = opened.journey
            await journey.run([*journey.setting_up(), *journey.reading()], show)
        size, how = memory.of_tree(running.supervisor_pid, without=memory.own_pid())
        show("")
        show(f"ready after {ready:.1f} s; journey took {running.progress.seconds - ready:.1f} s")
        show(f"memory of the whole stack, stores included: {size / 1e6:.0f} MB ({how})")
        show("journey ok")

    return _directed(running, walk)


def up(running: Running) -> int:
    """Seeds a publication the first time, and says where everything is; returns an exit code."""

    async def settle() -> None:
        show = running.progress.show
        async with tools(running, "publication") as opened:
            first = not running.place.publication.exists()
            if first:
                running.progress.say("seeding a publication")
                seeded = await publication.seed(opened.journey, opened.api)
                seeded |= {"stripe_secret_key": STRIPE_SECRET_KEY}
                write_private(running.place.publication, json.dumps(seeded, indent=1))
                running.place.bootstrap_token.unlink(missing_ok=True)
            else:
                seeded = json.loads(running.place.publication.read_text())
                await publication.follow_gateway(seeded, opened.stripe, running.ports.gateway_url)
        for line in publication.shown(running, seeded, first=first):
            show(line)

    return _directed(running, settle)


def serve(running: Running) -> int:
    """Only waits until all is ready; for tests, which find everything in endpoints.json."""

    async def announce() -> None:
        ports, place = running.ports, running.place
        said = {
            "gateway": ports.gateway_url,
            "stripe": ports.stripe_url,
            "mail": ports.mail_url,
            "stripe_secret_key": STRIPE_SECRET_KEY,
            "stripe_publishable_key": STRIPE_PUBLISHABLE_KEY,
            "bootstrap_token": place.bootstrap_token.read_text().strip(),
            "ready_seconds": running.progress.seconds,
        }
        write_private(place.endpoints, json.dumps(said))

    return _directed(running, announce)


def _directed(running: Running, work: Callable[[], Awaitable[None]]) -> int:
    async def run() -> None:
        await running.wait_ready()
        running.progress.say("every service is ready")
        await work()

    try:
        asyncio.run(run())
    except NotReadyError as error:
        running.progress.say(f"the stack did not start\n{error}")
        return 1
    except JourneyError as error:
        running.progress.show(f"journey failed at: {error}")
        running.progress.show(f"logs: {running.place.logs}")
        return 1
    return 0
