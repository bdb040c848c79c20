"""Rules of abuse: what is found, what is decided about it, and how long that holds."""
