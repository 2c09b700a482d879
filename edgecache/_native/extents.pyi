"""The arena's memory: units handed out as chains of extents. Nothing here is for Python but tests' own hook."""
