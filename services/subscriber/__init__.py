"""The subscriber service: readers' profiles, what they may use, the publisher's sites, and imports."""
