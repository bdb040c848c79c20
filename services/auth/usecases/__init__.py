"""What auth does, one method an RPC."""
