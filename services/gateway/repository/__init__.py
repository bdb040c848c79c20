"""Every SQL statement of the gateway's rules service."""
