"""What alerts look at is there to be scraped, in the processes that say it."""

import re
from pathlib import Path

import aiohttp
import yaml

from infra.local.journey import Journey
from infra.local.secrets import SERVICES
from tests.support.stack import StackProcess

ALERTS = Path(__file__).resolve().parents[2] / "charts" / "gatefold" / "alerts"


async def scraped(stack: StackProcess, service: str) -> set[str]:
    connector = aiohttp.UnixConnector(str(stack.place.admin_socket(service)))
    async with aiohttp.ClientSession(connector=connector) as session, session.get("http://service/metrics") as answer:
        text = await answer.text()
    return set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))


async def test_every_metric_of_an_alert_is_scraped(stack: StackProcess, journey: Journey) -> None:
    named = {
        metric
        for path in ALERTS.glob("*.yaml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        for metric in re.findall(r"\bgatefold_[a-z0-9_]+", rule["expr"])
    }
    found = {service: await scraped(stack, service) for service in SERVICES}
    assert named <= set().union(*found.values())
    followers = {service for service, names in found.items() if "gatefold_verdicts_followed_timestamp_seconds" in names}
    assert followers == {"gateway", "auth", "billing", "subscriber"}
