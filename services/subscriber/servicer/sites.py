"""Owns gatefold.subscriber.v1.SiteService at the wire."""

from gatefold.subscriber.v1 import site_pb2, site_pb2_grpc

from libs import ids
from services.subscriber.usecases import present
from services.subscriber.usecases.sites import Sites


class SiteServicer(site_pb2_grpc.SiteServiceServicer):
    """A publisher's web sites."""

    def __init__(self, sites: Sites) -> None:
        self._sites = sites

    async def CreateSite(self, request: site_pb2.CreateSiteRequest, context: object) -> site_pb2.Site:
        """Adds a site."""
        return present.site(await self._sites.create_site(request.name, request.origin, request))

    async def ListSites(self, request: site_pb2.ListSitesRequest, context: object) -> site_pb2.ListSitesResponse:
        """Lists the sites."""
        return site_pb2.ListSitesResponse(data=[present.site(site) for site in await self._sites.list_sites()])

    async def ResolveOrigin(
        self, request: site_pb2.ResolveOriginRequest, context: object
    ) -> site_pb2.ResolveOriginResponse:
        """Tells whose an origin is."""
        accounts = await self._sites.resolve_origin(request.origin)
        return site_pb2.ResolveOriginResponse(account_ids=[ids.encode("acct", account) for account in accounts])
