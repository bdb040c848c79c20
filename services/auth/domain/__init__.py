"""Entities and rules of identity."""
