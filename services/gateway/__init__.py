"""Owns the gateway: the public HTTP edge."""
