"""Billing's rules: standard library, libs.money and libs.errors only."""
