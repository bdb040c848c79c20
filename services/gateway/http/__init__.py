"""Owns everything between a client's HTTP request and the gRPC call behind it."""
