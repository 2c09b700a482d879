"""Load tests: locust profiles and the side-by-side benchmark. Not part of the installed package."""
