"""Owns the OpenAPI 3.1 document, made from the contracts and their comments."""

from services.gateway.http.openapi.document import document

__all__ = ["document"]
