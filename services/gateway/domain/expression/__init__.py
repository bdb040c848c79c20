"""Owns the language of firewall rules: a subset of CEL, checked against the fields of a request, compiled to Python."""

from services.gateway.domain.expression.checker import check
from services.gateway.domain.expression.fault import ExpressionError
from services.gateway.domain.expression.node import Node
from services.gateway.domain.expression.parser import parse
from services.gateway.domain.expression.patterns import Engine
from services.gateway.domain.expression.schema import FIELDS, Field, Kind, Schema

__all__ = ["FIELDS", "Engine", "ExpressionError", "Field", "Kind", "Node", "Schema", "check", "parse"]
