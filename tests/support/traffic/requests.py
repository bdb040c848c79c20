"""Owns the requests that people and tools send: one function a purpose, with the routes and reasons of the product."""

from dataclasses import replace

from tests.support.traffic.world import Client, Inner, Request

PUBLISHABLE = "PUBLISHABLE_KEY"
READER = "SUBSCRIBER"
SECRET = "SECRET_KEY"
STAFF = "STAFF"
ANONYMOUS = "ANONYMOUS"


def site_key(account: str) -> str:
    """Returns the publishable key that all pages of an account use."""
    return f"key_{account}_site"


def sign_in(at: float, client: Client, account: str, target: str, outcome: str = "right", damage: int = 0) -> Request:
    """A password that is tried on a page: `right`, `wrong`, `unknown` or `delayed`."""
    status, reason = {
        "right": (200, ""),
        "wrong": (401, "credentials_invalid"),
        "unknown": (401, "credentials_invalid"),
        "delayed": (429, "sign_in_delayed"),
    }[outcome]
    inner = Inner("sign_in.password", f"{account}/{target}", status, reason)
    return Request(
        at,
        client,
        account,
        "POST",
        "/v1/sessions",
        PUBLISHABLE,
        site_key(account),
        status=status,
        reason=reason,
        inner=(inner,),
        damage=damage,
    )


def read(at: float, client: Client, account: str, article: str, reader: str = "", damage: int = 0) -> Request:
    """An article that is opened: by a reader who is signed in, or by anybody, which the meter counts."""
    return Request(
        at,
        client,
        account,
        "GET",
        "/v1/access",
        READER if reader else PUBLISHABLE,
        reader or site_key(account),
        session=f"ses_{reader}_{client.device}" if reader else "",
        target=article,
        inner=() if reader else (Inner("meter.read", article),),
        response_bytes=400,
        damage=damage,
    )


def offers(at: float, client: Client, account: str) -> Request:
    """What is for sale."""
    return Request(at, client, account, "GET", "/v1/offers", PUBLISHABLE, site_key(account), response_bytes=6000)


def register(at: float, client: Client, account: str, reader: str) -> Request:
    """Somebody new."""
    inner = (Inner("registration", f"{account}/{reader}", 202),)
    return Request(
        at, client, account, "POST", "/v1/registrations", PUBLISHABLE, site_key(account), status=202, inner=inner
    )


def of_reader(
    at: float, client: Client, account: str, reader: str, method: str, route: str, *, target: str = "", damage: int = 0
) -> Request:
    """Something that a signed-in reader does."""
    session = f"ses_{reader}_{client.device}"
    return Request(at, client, account, method, route, READER, reader, session, target, damage=damage)


def pay(
    at: float, client: Client, account: str, reader: str, card: str, *, good: bool, amount: int = 990, damage: int = 0
) -> Request:
    """A checkout with a card."""
    status, reason = (200, "") if good else (402, "card_declined")
    inner = Inner("payment.attempt", card, status, reason, amount)
    bought = of_reader(at, client, account, reader, "POST", "/v1/checkouts")
    return replace(bought, status=status, reason=reason, inner=(inner,), damage=damage)


def code(
    at: float,
    client: Client,
    account: str,
    text: str,
    *,
    good: bool,
    reader: str = "",
    gift: bool = False,
    damage: int = 0,
) -> Request:
    """A coupon or gift code that is entered."""
    status, reason = (200, "") if good else (404, "gift_code_unknown" if gift else "coupon_unknown")
    inner = Inner("gift.attempt" if gift else "coupon.attempt", text, status, reason)
    return Request(
        at,
        client,
        account,
        "POST",
        "/v1/gifts/redeem" if gift else "/v1/checkouts/coupon",
        READER if reader else PUBLISHABLE,
        reader or site_key(account),
        session=f"ses_{reader}_{client.device}" if reader else "",
        status=status,
        reason=reason,
        inner=(inner,),
        damage=damage,
    )


def trial(at: float, client: Client, account: str, reader: str, card: str, damage: int = 0) -> Request:
    """A trial that begins, with the card it would be paid with."""
    begun = of_reader(at, client, account, reader, "POST", "/v1/checkouts")
    return replace(begun, inner=(Inner("trial.started", card),), damage=damage)


def refund(
    at: float, client: Client, account: str, reader: str, card: str, amount: int = 990, damage: int = 0
) -> Request:
    """Money that is asked back."""
    asked = of_reader(at, client, account, reader, "POST", "/v1/refunds")
    return replace(asked, inner=(Inner("refund.requested", card, amount_minor=amount),), damage=damage)


def of_server(
    at: float,
    client: Client,
    account: str,
    key: str,
    method: str,
    route: str,
    *,
    target: str = "",
    status: int = 200,
    reason: str = "",
    damage: int = 0,
) -> Request:
    """Something that a publisher's server asks with a secret key."""
    return Request(
        at, client, account, method, route, SECRET, key, target=target, status=status, reason=reason, damage=damage
    )
