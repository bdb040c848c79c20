"""Owns what the subscriber service reads from its environment."""

from dataclasses import dataclass

from libs.service import ServiceConfig


@dataclass(frozen=True)
class Config:
    """The service's settings; `object_store_url` is `file:///…` or `s3://…`, where files of imports wait."""

    service: ServiceConfig
    object_store_url: str
