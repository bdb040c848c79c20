"""Getting back in over the whole product: asked for over HTTP, answered by mail, finished over HTTP."""

import re
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from infra.local.director import MailView
from infra.local.journey import Api, Cast
from infra.local.journey.steps import OWNER, PASSWORD, READER_URL, token_of
from tests.support.stack import StackProcess

NEW = "an entirely different phrase"
VARYING = {"date", "x-request-id", "ratelimit", "ratelimit-policy", "server-timing", "traceparent"}


@pytest.fixture
async def reader(api: Api, cast: Cast, mailbox: MailView) -> str:
    """A reader who has proven the mailbox."""
    email = "lost@example.com"
    body = {"email": email, "password": PASSWORD}
    kept = await api.ok("POST", "/v1/registrations", token=cast.publishable_key, key="lost", json=body)
    token = token_of(await mailbox.wait(email, "Confirm your address", 60))
    body = {"token": token, "browser_secret": kept["browser_secret"]}
    await api.call("POST", "/v1/registrations/verify", token=cast.publishable_key, json=body)
    return email


@pytest.mark.case("auth-35")
@pytest.mark.case("auth-19")
async def test_a_password_is_reset_by_mail_whatever_host_the_request_names_and_whoever_opens_the_link(
    stack: StackProcess, session: aiohttp.ClientSession, api: Api, cast: Cast, mailbox: MailView, reader: str
) -> None:
    url = stack.endpoints["gateway"] + "/v1/password_resets"

    async def ask(email: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        credential = {"Authorization": f"Bearer {cast.publishable_key}"}
        async with session.post(url, json={"email": email}, headers={**credential, **headers}) as answer:
            kept = {name.lower(): value for name, value in answer.headers.items() if name.lower() not in VARYING}
            return answer.status, await answer.read(), kept

    unknown = await ask("nobody@example.com")
    spoofed = {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example", "Origin": "https://evil.example"}
    known = await ask(reader)
    assert known == unknown
    assert (known[0], known[1]) == (202, b"{}")
    assert (await ask(reader, Host="evil.example", **spoofed))[0] in {202, 400, 403, 421}

    text = await mailbox.wait(reader, "Choose a new password", 60)
    (link,) = re.findall(r"https://\S+", text)
    assert urlsplit(link)[:3] == urlsplit(READER_URL)[:3]
    assert "evil.example" not in text
    # A scanner opens what it finds in mails: nothing there takes a token from a query, and no token is sent anyway.
    token = token_of(text)
    for path in ("/v1/password_resets/complete", "/v1/password_resets"):
        async with session.get(stack.endpoints["gateway"] + path, params={"token": token}) as opened:
            assert opened.status in {401, 404, 405}
            assert opened.headers["Referrer-Policy"] == "no-referrer"

    body: dict[str, Any] = {"token": token, "password": NEW}
    assert (await api.call("POST", "/v1/password_resets/complete", json=body)).status == 200
    assert (await api.call("POST", "/v1/password_resets/complete", json=body)).reason == "token_spent"
    await mailbox.wait(reader, "Your password at", 60)
    body = {"email": reader, "password": PASSWORD}
    refused = await api.call("POST", "/v1/sessions", token=cast.publishable_key, json=body)
    assert refused.reason == "credentials_invalid"
    signed_in = await api.ok("POST", "/v1/sessions", token=cast.publishable_key, json={**body, "password": NEW})

    # The address follows in the profile.
    present = "found@example.com"
    asked = await api.call("POST", "/v1/session/email", token=signed_in["access_token"], json={"email": present})
    assert asked.status == 202
    token = token_of(await mailbox.wait(present, "Confirm your new address", 60))
    strange = await api.call("POST", "/v1/emails/confirm", json={"token": token})
    assert strange.reason == "password_required"
    body = {"token": token, "browser_secret": asked.body["browser_secret"]}
    assert (await api.call("POST", "/v1/emails/confirm", json=body)).status == 200
    me = await api.ok("GET", "/v1/me", token=signed_in["access_token"])
    assert me["email"] == present
    await mailbox.wait(reader, "Your address at", 60)

    # A link signs in the browser that asked.
    link_asked = await api.ok("POST", "/v1/magic_links", token=cast.publishable_key, json={"email": present})
    token = token_of(await mailbox.wait(present, "Sign in to", 60))
    body = {"token": token, "browser_secret": "gfbs_of-another-browser"}
    path = "/v1/magic_links/redeem"
    assert (await api.call("POST", path, token=cast.publishable_key, json=body)).reason == "token_invalid"
    body["browser_secret"] = link_asked["browser_secret"]
    tokens = await api.ok("POST", path, token=cast.publishable_key, json=body)
    assert tokens["principal_id"] == signed_in["principal_id"]


async def test_staff_are_written_to_by_the_platform_and_led_to_its_own_host(
    api: Api, cast: Cast, mailbox: MailView
) -> None:
    assert cast.staff
    answer = await api.call("POST", "/v1/staff/password_resets", json={"email": OWNER})
    assert (answer.status, answer.body) == (202, {})
    text = await mailbox.wait(OWNER, "Choose a new password for Gatefold", 60)
    (link,) = re.findall(r"https?://\S+", text)
    assert "/recover#purpose=reset_password&token=gfct_" in link
