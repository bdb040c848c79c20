"""Owns the gateway's composition: configuration in, a served edge out."""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence

from libs import config, process
from libs.config import ConfigError
from libs.errors import GatefoldError
from libs.process import Process
from services.gateway.config import GatewayConfig
from services.gateway.http.address import ClientAddress
from services.gateway.http.app import App, Edge, operations
from services.gateway.http.authorisation import Authorisation
from services.gateway.http.certificates import certificates, pairs
from services.gateway.http.contracts import Contracts
from services.gateway.http.cors import Cors
from services.gateway.http.grpc_logs import GrpcLogs
from services.gateway.http.hardening import Bodies
from services.gateway.http.headers import StandardHeaders
from services.gateway.http.openapi import document
from services.gateway.http.overload import Overload
from services.gateway.http.pages import Pages
from services.gateway.http.problems import Problems
from services.gateway.http.routes import Routes
from services.gateway.http.server import HttpServer
from services.gateway.wiring import commands
from services.gateway.wiring.activity import told
from services.gateway.wiring.credentials import credentials
from services.gateway.wiring.guard import guard
from services.gateway.wiring.limits import rate_limits
from services.gateway.wiring.peers import backends
from services.gateway.wiring.rules import enforce
from services.gateway.wiring.stores import Stores


async def compose(process: Process, environ: Mapping[str, str] | None) -> None:
    """Builds the edge and starts listening."""
    settings = config.load(GatewayConfig, environ)
    contracts = Contracts.load(settings.descriptors)
    stores = Stores(process, settings)
    services = backends(process, settings)
    known = credentials(process, settings, stores, services)
    telling = told(process, settings, stores)
    limits = await rate_limits(process, settings, stores, telling.changed)
    guarding = guard(process, settings, stores, services, telling)
    await enforce(process, settings, stores, guarding.firewall, limits)
    overload = Overload(settings.load, monotonic=time.monotonic, telemetry=process.telemetry)
    process.background("loop lag", overload.watch, in_closed_mode=True)
    address = ClientAddress(settings.trusted_proxies)
    edge = Edge(
        telemetry=process.telemetry,
        clock=process.clock,
        request_ids=telling.request_ids,
        problems=Problems(settings.problem_base),
        headers=StandardHeaders(settings.hsts()),
        address=address,
        clients=telling.clients,
        leaks=known.leaks,
        firewall=guarding.firewall,
        challenges=guarding.challenges,
        pages=Pages(document(contracts), settings.problem_page),
        routes=Routes(contracts.endpoints),
        operations=operations(contracts, services.call),
        authentication=known.authentication,
        cookies=known.cookies,
        limits=limits,
        authorisation=Authorisation(process.clock, closed=process.config.closed_mode),
        cors=Cors(services.accounts_of_origin, monotonic=time.monotonic),
        bodies=Bodies(settings.bodies),
        overload=overload,
        activities=telling.activities,
        refusals=telling.refusals,
    )
    app = App(edge)
    server = HttpServer(
        app,
        settings.http_listen,
        settings.connections,
        address,
        monotonic=time.monotonic,
        telemetry=process.telemetry,
        certificates=certificates(settings.pem(), process.telemetry),
        proxied=settings.http_proxy_protocol,
        shared_port=settings.http_shared_port,
    )
    process.background("connections", server.sweep, in_closed_mode=True)
    await process.serve(server)
    if settings.otlp_listen is not None:
        logs = GrpcLogs(
            app.handle,
            settings.otlp_listen,
            settings.connections,
            pairs(settings.pem(), process.telemetry),
            message_seconds=settings.bodies.body_seconds,
            address_of=address.of_peer,
            monotonic=time.monotonic,
            shared_port=settings.http_shared_port,
        )
        await process.serve(logs)


_COMMANDS = {"versions": commands.list_versions, "roll-back": commands.roll_back}


def main(environ: Mapping[str, str] | None = None, arguments: Sequence[str] = ()) -> int:
    """Runs the gateway, or the command that is named; returns the exit code."""
    if not arguments:
        return process.run("gateway", compose, environ)
    command = _COMMANDS.get(arguments[0])
    if command is None or len(arguments) != 1 + (command is commands.roll_back):
        sys.stderr.write("usage: python -m services.gateway [versions | roll-back NUMBER]\n")
        return 2
    try:
        sys.stdout.write(asyncio.run(command(environ, arguments[-1])) + "\n")
    except (ConfigError, GatefoldError) as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(arguments=sys.argv[1:]))
