"""Every SQL statement of billing, one noun a file."""
