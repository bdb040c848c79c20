"""The abuse service: sees what happens, judges it by readable detectors, and tells who enforces."""
