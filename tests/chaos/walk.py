"""Owns one walk of the journey over a fresh stack, with or without a kill on its way, and what it found."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from infra.local.director import MailView
from infra.local.journey import Api, Journey, JourneyError, WebhookReceiver
from infra.local.secrets import SERVICES
from infra.local.settings import Place
from infra.local.stack import forget
from tests.support.audit import audit
from tests.support.stack import StackProcess

PATIENCE_SECONDS = 60.0
# A small export with one record of each fate; the ten thousand are the demo's.
MEMBERS = """email,name,note,subscribed_to_emails,complimentary_plan,stripe_customer_id,created_at,labels,tiers
first@example.com,First,,true,false,,2024-01-01T00:00:00.000Z,,
second@example.com,Second,"a note
over two lines",true,false,,2024-01-01T00:00:00.000Z,"vip,early",
FIRST@example.com,Again,,true,false,,2024-01-01T00:00:00.000Z,,
not an address,Nobody,,true,false,,2024-01-01T00:00:00.000Z,,
free@example.com,Free,,false,true,,2024-01-01T00:00:00.000Z,,
"""
EXPECTED = {"total": 5, "created": 3, "updated": 0, "unchanged": 0, "duplicates": 1, "refused": 1}


@dataclass(frozen=True)
class Walk:
    """How a walk ended: `problems` is empty when all is well, `killed` says whether its point was met."""

    point: str
    killed: bool
    problems: list[str]
    passed: list[str]
    """All points that were passed, in order."""


async def walk(state: Path, point: str = "") -> Walk:
    """Runs the journey over a fresh stack and kills one service at `point` (`billing:after-commit:…`), once."""
    state.mkdir(parents=True, mode=0o700)
    log = state.with_name(state.name + ".points")
    extra = {service: {"GATEFOLD_KILL_LOG": str(log)} for service in SERVICES}
    if point:
        extra[point.partition(":")[0]]["GATEFOLD_KILL_AT"] = point
    stack = StackProcess(state, extra=extra)
    problems: list[str] = []
    try:
        stack.start()
        problems = await _journey(stack, state)
    except (AssertionError, JourneyError, TimeoutError) as error:
        problems = [str(error)]
    finally:
        code = stack.stop()
    if code != 0:
        problems.append(f"the stack ended with {code}")
    if problems:
        problems.append(stack.logs(30))
    passed = log.read_text().splitlines() if log.exists() else []
    killed = log.with_name(log.name + ".killed").exists()
    if not problems:
        forget(Place(state))
        for left in state.parent.glob(state.name + "*"):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()
    return Walk(point, killed, problems, passed)


async def _journey(stack: StackProcess, state: Path) -> list[str]:
    members, expected = state / "members.csv", state / "members.json"
    members.write_text(MEMBERS)
    expected.write_text(json.dumps(EXPECTED))
    receiver = WebhookReceiver()
    await receiver.start()
    try:
        async with aiohttp.ClientSession() as session:
            at: Mapping[str, str] = stack.endpoints
            api = Api(session, at["gateway"], patience_seconds=PATIENCE_SECONDS)
            stripe = Api(session, at["stripe"], patience_seconds=PATIENCE_SECONDS)
            scene = replace(stack.scene(), members=members, expected=expected)
            journey = Journey(scene, api, stripe, MailView(session, at["mail"]), receiver, name="chaos")
            await journey.run([*journey.setting_up(), *journey.reading()], lambda line: None)
            return await audit(stack, journey, receiver)
    finally:
        await receiver.stop()
