"""Abuse's loops that no request started: reading shards, telling of verdicts, ending what is over."""
