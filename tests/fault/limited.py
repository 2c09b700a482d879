"""`edgecache serve` on a machine that grants few file descriptors: EDGE_FILES says how many."""

import os
import resource
import sys

from edgecache.cli import main

if __name__ == "__main__":
    files = int(os.environ["EDGE_FILES"])
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    sys.argv[0] = "edgecache"
    main()
