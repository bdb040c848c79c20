"""Owns how the gateway reaches services, itself among them, and the keys it signs callers with."""

import hmac
from dataclasses import replace

import orjson

from libs.caller import CallerSigner, Keys
from libs.grpc_client import Channels, GrpcConfig
from libs.process import Process
from services.gateway.clients import Backends
from services.gateway.config import GatewayConfig

_OWN_PAIR = "gateway>gateway"


def backends(process: Process, settings: GatewayConfig) -> Backends:
    """Returns the services behind the gateway."""
    signer = CallerSigner("gateway", caller_keys(settings), process.clock)
    peers = _with_itself(settings.grpc, process.config.listen)
    channels = Channels("gateway", peers, signer, telemetry=process.telemetry, kill_points=process.kill_points)
    process.on_drain(channels.close)
    return Backends(channels)


def caller_keys(settings: GatewayConfig) -> Keys:
    """Returns the keys of all pairs; the gateway calls itself with one that all gateways can make."""
    own = hmac.digest(settings.key_pepper.reveal().encode(), f"gatefold/caller/{_OWN_PAIR}".encode(), "sha256")
    return {_OWN_PAIR: (own,), **settings.caller.keys()}


def _with_itself(grpc: GrpcConfig, listen: str) -> GrpcConfig:
    """Returns the peers with the gateway among them: its rules are served where it listens."""
    return replace(grpc, peers=orjson.dumps({"gateway": listen, **grpc.addresses()}).decode())
