"""Owns the publication that `make up` seeds: made over HTTP like anybody's, and shown to whoever started the stack."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from infra.local.journey import Api, Journey, JourneyError
from infra.local.journey.steps import OPERATOR, OWNER

if TYPE_CHECKING:
    from infra.local.stack import Running

LOCAL_ORIGIN = "http://localhost:3000"
YEAR_MINOR = 9000


async def seed(journey: Journey, api: Api) -> dict[str, Any]:
    """Makes operator, account, owner, keys, site, catalogue and Stripe connection; returns what people need of them."""
    steps = [step for step in journey.setting_up() if step[1] != journey.add_webhook]
    await journey.run(steps, _silent)
    cast = journey.cast
    token = cast.secret_key

    async def write(path: str, name: str, body: dict[str, Any]) -> Any:
        return await api.ok("POST", path, token=token, key=f"publication-{name}", json=body)

    await write("/v1/sites", "local-site", {"name": "This machine", "origin": LOCAL_ORIGIN})
    offers = (await api.ok("GET", "/v1/offers", token=cast.publishable_key))["data"]
    product = offers[0]["product"]["id"]
    plan = await write("/v1/plans", "yearly", {"product_id": product, "name": "Yearly", "interval": "year"})
    amount = {"amount_minor": YEAR_MINOR, "currency": offers[0]["price"]["amount"]["currency"]}
    await write("/v1/prices", "yearly-price", {"plan_id": plan["id"], "amount": amount})
    return {
        "account": cast.account,
        "test_account": cast.test_account,
        "secret_key": cast.secret_key,
        "publishable_key": cast.publishable_key,
        "connection": cast.connection,
    }


async def follow_gateway(seeded: Mapping[str, Any], stripe: Api, gateway: str) -> None:
    """Points Stripe's webhook endpoint at where the gateway is this time."""
    token = seeded["stripe_secret_key"]
    endpoints = (await stripe.ok("GET", "/v1/webhook_endpoints", token=token))["data"]
    path = f"/v1/webhooks/stripe/{seeded['connection']}"
    ours = [endpoint for endpoint in endpoints if endpoint["url"].endswith(path)]
    if not ours:
        raise JourneyError(f"the Stripe simulator has no webhook endpoint for {seeded['connection']}")
    for endpoint in ours:
        if endpoint["url"] != gateway + path:
            await stripe.ok(
                "POST", f"/v1/webhook_endpoints/{endpoint['id']}", token=token, form={"url": gateway + path}
            )


def shown(running: "Running", seeded: Mapping[str, Any], *, first: bool) -> Iterator[str]:
    """Yields the lines for the terminal: where everything is, and, the first time, how to get in."""
    ports, secrets = running.ports, running.secrets
    yield ""
    yield f"  API            {ports.gateway_url}"
    yield f"  documentation  {ports.gateway_url}/docs"
    yield f"  mails          {ports.mail_url}"
    yield f"  Stripe         {ports.stripe_url} (simulator; card 4242 4242 4242 4242, 3-D Secure 4000 0025 0000 3155)"
    yield f"  accounts       {seeded['account']} (live), {seeded['test_account']} (test)"
    if first:
        yield "  shown this once (kept for you alone in publication.json and secrets.json of the state directory):"
        yield f"    operator         {OPERATOR}  {secrets['operator_password']}"
        yield f"    owner            {OWNER}  {secrets['owner_password']}"
        yield f"    secret key       {seeded['secret_key']}"
        yield f"    publishable key  {seeded['publishable_key']}"
    else:
        yield f"  credentials    {running.place.publication} and {running.place.secrets}"
    yield ""


def _silent(line: str) -> None:
    """Seeding shows nothing of its steps."""
