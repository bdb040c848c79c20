"""Secrets of the one-machine stack."""

import json
from pathlib import Path

from infra.local.secrets import Secrets


def test_secrets_are_made_once_and_kept_for_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    first = Secrets(path)
    again = Secrets(path)
    assert first["key_pepper"] == again["key_pepper"] != first["password_pepper"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(first["challenge_secret"]) >= 32


def test_secret_that_a_newer_version_needs_is_added(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    kept = Secrets(path)["valkey"]
    values = json.loads(path.read_text())
    del values["key_pepper"]
    path.write_text(json.dumps(values))
    assert Secrets(path)["valkey"] == kept
    assert "key_pepper" in json.loads(path.read_text())


def test_service_gets_the_keys_of_its_own_pairs_only(tmp_path: Path) -> None:
    keys = json.loads(Secrets(tmp_path / "secrets.json").caller_keys("billing"))
    assert "gateway>billing" in keys
    assert "notify>billing" in keys
    assert all("billing" in pair.split(">") for pair in keys)


def test_every_database_role_has_a_password_of_its_own(tmp_path: Path) -> None:
    passwords = Secrets(tmp_path / "secrets.json").database_passwords()
    assert {"auth_owner", "auth_app", "billing_jobs", "notify_backup", "subscriber_keys", "keys_owner"} <= set(
        passwords
    )
    assert len(set(passwords.values())) == len(passwords)
