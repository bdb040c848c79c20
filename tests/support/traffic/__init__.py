"""Owns labelled traffic: honest people and systems, and attackers, as the requests that they send.

Written apart from the detectors: nothing here computes a feature, and nothing of services/abuse is imported.
"""
