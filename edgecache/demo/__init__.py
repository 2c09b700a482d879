"""The bundled demo: a small pottery shop as an origin, and an edge in front of it, to see caching and purging at work.

`catalogue` and `pages` are pure (what the shop sells, what its pages look like); `origin` serves them; `run` puts the
edge in front. Nothing else in the package imports from here.
"""
