"""Accounts, people and their roles, API keys, readers' credentials, sessions and signing keys."""
