"""Owns what the subscriber service reads from its environment."""

from dataclasses import dataclass

from libs.object_store import ObjectStoreConfig
from libs.service import ServiceConfig


@dataclass(frozen=True)
class Config:
    """The service's settings; the object store is where files of imports wait."""

    service: ServiceConfig
    object_store: ObjectStoreConfig
