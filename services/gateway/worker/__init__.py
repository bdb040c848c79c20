"""Loops of the gateway that no request started."""
