"""Owns rate limits: quotas, the generic cell rate algorithm in the store and in this process, and the headers."""

from services.gateway.http.limits.admission import Limits
from services.gateway.http.limits.limit import Away
from services.gateway.http.limits.local import LocalLimiter
from services.gateway.http.limits.quotas import Quotas
from services.gateway.http.limits.store import RateStore

__all__ = ["Away", "Limits", "LocalLimiter", "Quotas", "RateStore"]
