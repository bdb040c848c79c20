"""Owns notify's settings."""

from dataclasses import dataclass

from libs.config import Secret
from libs.service import ServiceConfig


@dataclass(frozen=True)
class Config:
    """What notify reads from its environment."""

    service: ServiceConfig
    smtp_host: str
    smtp_port: int
    mail_from: str
    smtp_username: str = ""
    smtp_password: Secret | None = None
    smtp_start_tls: bool = True
    webhook_allow_private: bool = False
    """Whether webhooks may go to private addresses: only for a stack on one machine."""
