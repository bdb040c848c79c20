"""Sites on a real database, and the way from an origin to its accounts."""

import pytest
from gatefold.subscriber.v1 import site_pb2

from libs import ids
from libs.errors import GatefoldError

from .conftest import House


async def create(house: House, origin: str, name: str = "News") -> site_pb2.Site:
    return await house.site_rpc.CreateSite(site_pb2.CreateSiteRequest(name=name, origin=origin), None)


async def resolve(house: House, origin: str) -> list[str]:
    with house.service("gateway"):
        return list(
            (await house.site_rpc.ResolveOrigin(site_pb2.ResolveOriginRequest(origin=origin), None)).account_ids
        )


async def test_an_origin_finds_all_accounts_that_have_it(house: House) -> None:
    other = house.ids.new()
    with house.staff():
        site = await create(house, "HTTPS://News.Example:443")
        assert list((await house.site_rpc.ListSites(site_pb2.ListSitesRequest(), None)).data) == [site]
    with house.staff(account=other):
        await create(house, "https://news.example")
        await create(house, "https://other.example:8443")
    assert site.origin == "https://news.example"
    assert await resolve(house, "https://news.example") == [
        ids.encode("acct", house.account),
        ids.encode("acct", other),
    ]
    assert await resolve(house, "https://other.example:8443") == [ids.encode("acct", other)]
    for nobodys in ("https://other.example", "http://news.example", "null", "", "https://news.example/"):
        assert await resolve(house, nobodys) == []


async def test_a_site_is_added_once(house: House) -> None:
    with house.staff("key-1"):
        first = await create(house, "https://once.example")
        assert await create(house, "https://once.example") == first
    with house.staff("key-2"), pytest.raises(GatefoldError) as raised:
        await create(house, "https://ONCE.example")
    assert raised.value.reason == "site_exists"
    assert await house.count("SELECT count(*) FROM site") == 1
    assert await resolve(house, "https://once.example") == [ids.encode("acct", house.account)]


@pytest.mark.parametrize(
    "origin", ["news.example", "https://news.example/path", "https://*.example", "https://", "ftp://a.b"]
)
async def test_what_is_no_origin_is_refused(house: House, origin: str) -> None:
    with house.staff(), pytest.raises(GatefoldError) as raised:
        await create(house, origin)
    assert raised.value.reason == "origin_malformed"
