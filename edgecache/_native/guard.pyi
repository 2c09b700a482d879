"""Locks, recovery after a death, and pins of the arena. Nothing here is for Python."""
