"""Owns what the subscriber service reads from its environment."""

from dataclasses import dataclass, field

from libs.config import Secret
from libs.object_store import ObjectStoreConfig
from libs.service import ServiceConfig


@dataclass(frozen=True)
class Config:
    """The service's settings; the object store is where files of imports wait.

    `key_pepper` is the platform's, with which verdicts name readers.
    """

    service: ServiceConfig
    object_store: ObjectStoreConfig
    key_pepper: Secret = field(repr=False)
