"""Abuse's RPCs: proto in, use case, proto out."""
