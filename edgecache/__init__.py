"""edgecache: a CDN edge cache in a box."""

__version__ = "0.1.0"
