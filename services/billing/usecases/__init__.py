"""Billing's use cases, one noun a file."""
