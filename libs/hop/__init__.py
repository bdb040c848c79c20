"""Owns the fast hop: unary calls between services as frames (gatefold.mux.v1) on a few long-lived streams."""
