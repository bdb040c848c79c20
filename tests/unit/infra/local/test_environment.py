"""What each service of the stack is told: its own databases and secrets, and nobody else's."""

from pathlib import Path

import pytest

from infra.local.environment import Environments
from infra.local.secrets import SERVICES, WITH_KEYS, Secrets
from infra.local.settings import Place, Ports
from infra.local.stack import stores


@pytest.fixture
def environments(tmp_path: Path) -> Environments:
    place = Place(tmp_path)
    secrets = Secrets(place.secrets)
    postgres, valkey = stores(place, secrets)
    return Environments(place, Ports(http=1, stripe=2, mail=3, smtp=4), secrets, postgres, valkey, bcrypt_cost=4)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_its_own_databases(environments: Environments, service: str) -> None:
    told = environments.of(service, {})
    for role in ("app", "jobs"):
        assert f"{service}_{role}" in told[f"GATEFOLD_POSTGRES_{role.upper()}_DSN"]


def test_the_edge_which_anybody_reaches_holds_no_key_to_sealed_data(environments: Environments) -> None:
    holders = {
        name for name in SERVICES if {"GATEFOLD_KEYS_DSN", "GATEFOLD_KEY_FILE"} & environments.of(name, {}).keys()
    }
    assert holders == set(WITH_KEYS)
    assert "gateway" not in holders


def test_what_is_given_on_top_replaces(environments: Environments) -> None:
    assert environments.of("gateway", {"GATEFOLD_BUNDLE_FILE": "/elsewhere"})["GATEFOLD_BUNDLE_FILE"] == "/elsewhere"
