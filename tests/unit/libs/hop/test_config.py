"""Tests of libs/hop/config."""

from typing import Any

import pytest

from libs import config
from libs.grpc_client import GrpcConfig
from libs.hop.config import HopConfig


@pytest.mark.parametrize(
    "fields",
    [
        {"hop_streams": 0},
        {"hop_calls": 0},
        {"hop_call_bytes": 0},
        {"hop_waiting": -1},
        {"hop_bytes": 1000, "hop_call_bytes": 1001},
        {"hop_bytes": 2**32},
    ],
)
def test_bounds_that_would_hold_everything_up_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="hop_"):
        HopConfig(**fields)


def test_the_bounds_come_from_the_environment_with_the_rest_of_the_channels() -> None:
    loaded = config.load(GrpcConfig, {"GATEFOLD_HOP": "false", "GATEFOLD_HOP_CALLS": "7", "GATEFOLD_PEERS": "{}"})

    assert loaded.hop == HopConfig(hop=False, hop_calls=7)
