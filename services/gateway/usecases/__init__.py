"""What the gateway's rules service does."""
