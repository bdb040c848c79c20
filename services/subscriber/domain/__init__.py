"""Rules of the subscriber service: plain data and the standard library."""
