"""Compile every ext/*.pyx into edgecache._native.* with warnings as errors; all metadata is in pyproject.toml.

What is installed also has the modules every request runs through compiled, as they stand (`EACH_REQUEST`). A build in
place leaves them alone: compiled, they would hide what somebody edits. A .pxd beside such a module names the fields
of its classes, and a test compares them. Dataclasses among them have no slots: they get the struct instead.
"""

import os
import sys
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup

HERE = Path(__file__).parent
os.chdir(HERE)

if not Path(sysconfig.get_path("include"), "Python.h").exists():
    sys.exit("edgecache: Python headers are missing; install them (Debian: apt-get install python3-dev)")

Options.warning_errors = True
# -Wno-*: what Cython's own generated C is known to trip over, nothing of ours.
CFLAGS = ["-O3", "-g1", "-pthread", "-std=gnu11", "-fno-strict-aliasing", "-Wall", "-Wextra", "-Werror"]
CFLAGS += ["-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Wno-unused-function"]
CFLAGS += ["-Wno-sign-compare", "-Wno-cast-function-type", "-Wno-unreachable-code"]

EACH_REQUEST = (
    *("edge/bounded", "edge/client_exchange", "edge/connection", "edge/forwarding", "edge/framing", "edge/lookup"),
    *("edge/pipeline", "edge/respond", "edge/sendfile", "edge/sites", "edge/teller", "edge/visit"),
    *("http/cachekey", "http/message", "http/wire"),
    *("observe/accesslog", "observe/events", "observe/metrics", "observe/slots"),
    *("origin/api", "origin/client", "origin/connection"),
    *("policy/cache_status", "policy/directives", "policy/freshness", "policy/invalidation", "policy/respond"),
    *("policy/rules", "policy/storing", "policy/verdicts", "store/memory"),
)
IN_PLACE = not {"--inplace", "-i", "editable_wheel", "develop"}.isdisjoint(sys.argv)

extensions = [
    Extension(
        f"edgecache._native.{source.stem}",
        [str(source)],
        include_dirs=["ext"],
        depends=[*map(str, Path("ext").glob("*.h")), *map(str, Path("edgecache/_native").glob("*.pxd"))],
        extra_compile_args=CFLAGS,
        extra_link_args=["-pthread"],
    )
    for source in sorted(Path("ext").glob("*.pyx"))
]

ordinary = [
    Extension(
        f"edgecache.{name.replace('/', '.')}",
        [f"edgecache/{name}.py"],
        extra_compile_args=["-O2", "-g1", "-w"],  # made from Python: nothing a C compiler could warn us of
    )
    for name in EACH_REQUEST
]


def compiled_as_it_stands() -> list[Extension]:
    """Python's meaning, not C's: annotations are for readers and mypy."""
    if IN_PLACE:
        return []
    directives = {"annotation_typing": False, "binding": True}
    made: list[Extension] = cythonize(
        ordinary, build_dir="build/cython", nthreads=0, language_level=3, compiler_directives=directives
    )
    return made


setup(
    options={"build_ext": {"parallel": len(os.sched_getaffinity(0))}},  # C compilers side by side
    ext_modules=cythonize(
        extensions,
        build_dir="build/cython",
        include_path=["."],
        nthreads=0,
        language_level=3,
        compiler_directives={
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
            "binding": True,
            "embedsignature": True,
        },
    )
    + compiled_as_it_stands(),
)
