"""`python -m edgecache`: the same as the `edgecache` command."""

from edgecache.cli import main

if __name__ == "__main__":
    main()
