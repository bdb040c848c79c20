"""Owns payment connections: which keys an account may use."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from libs import errors


@dataclass(frozen=True)
class PaymentConnection:
    """A publisher's account at a payment provider; its secrets are sealed apart."""

    id: UUID
    live: bool
    provider_account: str
    publishable_key: str
    time_zone: str
    created_at: datetime
    secret_key_sealed: bytes
    webhook_secrets_sealed: bytes


def check_keys(live: bool, publishable_key: str, secret_key: str, webhook_secret: str) -> None:
    """Raises `invalid` for keys of another mode than the account's, or what is no key of Stripe's at all."""
    mode = "live" if live else "test"
    for field, key, kinds in (
        ("publishable_key", publishable_key, ("pk",)),
        ("secret_key", secret_key, ("sk", "rk")),
    ):
        if not key.startswith(tuple(f"{kind}_{each}_" for kind in kinds for each in ("live", "test"))):
            raise errors.invalid("key_malformed", "This is no key of Stripe's of this kind.", field=field)
        if not key.startswith(tuple(f"{kind}_{mode}_" for kind in kinds)):
            raise errors.invalid("key_mode_mismatch", f"This account takes only {mode} keys of Stripe.", field=field)
    if not webhook_secret.startswith("whsec_") or len(webhook_secret) < 22:
        raise errors.invalid(
            "webhook_secret_malformed", "This is no signing secret of Stripe's.", field="webhook_secret"
        )
