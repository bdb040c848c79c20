"""Every SQL statement of the subscriber service."""
