"""The purge table of DESIGN §7 in shared memory. Nothing here is for Python: `edgecache._native.arena` is its face."""
