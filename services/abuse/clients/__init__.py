"""Abuse's talk with others: the streams of activities and verdicts, and the store of snapshots."""
