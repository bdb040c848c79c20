"""Owns what the abuse service reads from its environment."""

from dataclasses import dataclass, field

from libs.config import Secret
from libs.object_store import ObjectStoreConfig
from libs.postgres import PostgresConfig
from libs.service import ServiceConfig


@dataclass(frozen=True)
class Config:
    """The service's settings; the object store is where snapshots of what was counted are kept.

    `key_pepper` is the platform's: what a publisher's own logs say is hashed like everything else. `engine_threads` is
    how many shards are computed at once beside the requests. `otlp_records_per_second` is how many records of its own
    logs an account may send to one replica, ten seconds of it at once.
    """

    service: ServiceConfig
    object_store: ObjectStoreConfig
    key_pepper: Secret = field(repr=False)
    engine_threads: int = 2
    otlp_records_per_second: int = 2_000

    def __post_init__(self) -> None:
        if self.engine_threads < 1:
            raise ValueError("engine_threads must be at least 1")
        if self.otlp_records_per_second < 1:
            raise ValueError("otlp_records_per_second must be at least 1")


@dataclass(frozen=True)
class ReviewConfig:
    """What the commands need: the database alone."""

    postgres: PostgresConfig
