"""Every SQL statement of abuse, one noun a file; functions take the transaction they run in."""

from uuid import UUID

NEWEST = UUID(int=(1 << 128) - 1)
"""The cursor before the first page: lists go from the newest identifier to the oldest."""
