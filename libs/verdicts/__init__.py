"""Owns following the abuse service's verdicts, alike in every service that acts on them inside."""
