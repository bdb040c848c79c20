"""Walks the journey's kill points with kill -9: the supervisor restarts, the journey ends well, nothing is doubled."""
