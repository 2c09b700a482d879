"""Compile every ext/*.pyx into edgecache._native.* with warnings as errors; all metadata is in pyproject.toml."""

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

setup(
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
    if extensions
    else [],
)
