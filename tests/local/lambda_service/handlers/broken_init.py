"""Does not load."""

raise RuntimeError("no such table")
