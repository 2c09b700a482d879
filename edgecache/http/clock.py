"""The wall clock. The only place that reads it: everything below an event takes `now` as an argument."""

import time

wall_clock = time.time  # noqa: TID251 - this is the clock module the ban points to
"""Seconds since the Unix epoch."""
