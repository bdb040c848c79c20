"""Owns the gateway's composition in parts: each module builds one of them from the settings, and starts its loops."""
