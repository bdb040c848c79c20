"""Owns the bounds of the fast hop."""

from dataclasses import dataclass

from gatefold.mux.v1 import mux_pb2

SERVICE = mux_pb2.DESCRIPTOR.services_by_name["MuxService"].full_name
METHOD = f"/{SERVICE}/Carry"
"""The stream that carries calls."""
METADATA_BYTES = 64 * 1024
"""Greatest metadata of a call and of an answer, as of any gRPC call here."""
FRAME_BYTES = 256 * 1024
"""What one frame gathers before it is sent, and the parts that a long answer goes in."""
FRAME_CALLS = 64
"""Most calls or answers in one frame: with the metadata of so many it is far below what gRPC takes for a message."""


@dataclass(frozen=True)
class HopConfig:
    """How calls travel. A service states `hop_calls`, `hop_bytes` and `hop_call_bytes` to those who call it.

    `hop` tells whether this service makes and takes calls as frames at all, `hop_streams` how many streams it keeps to
    each peer. On one stream `hop_calls` calls with `hop_bytes` bytes of requests may be under way; `hop_call_bytes` is
    the longest request that goes as a frame. `hop_waiting` calls may wait for a place in a peer's window.
    """

    hop: bool = True
    hop_streams: int = 2
    hop_calls: int = 1024
    hop_bytes: int = 16 * 1024 * 1024
    hop_call_bytes: int = 256 * 1024
    hop_waiting: int = 4096

    def __post_init__(self) -> None:
        if min(self.hop_streams, self.hop_calls, self.hop_call_bytes) < 1 or self.hop_waiting < 0:
            raise ValueError("hop_streams, hop_calls and hop_call_bytes must be at least 1, and hop_waiting at least 0")
        if not self.hop_call_bytes <= self.hop_bytes < 2**32:
            raise ValueError("hop_bytes must be at least hop_call_bytes and below 4 GiB")
