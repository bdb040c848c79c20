"""Owns billing's configuration."""

from dataclasses import dataclass, field

from libs.config import Secret
from libs.service import ServiceConfig


@dataclass(frozen=True)
class Config:
    """What billing reads from its environment; `key_pepper` is the platform's, with which verdicts name readers."""

    service: ServiceConfig
    key_pepper: Secret = field(repr=False)
    stripe_api_base: str | None = None
    """Address of Stripe's API; None for Stripe itself."""
    billing_grace_days: int = 3
    """Days for which access goes on after the end of a period that was paid."""

    def __post_init__(self) -> None:
        if self.billing_grace_days < 0:
            raise ValueError("billing_grace_days must not be negative")
