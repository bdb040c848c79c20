"""What the subscriber service does, one method an RPC."""
