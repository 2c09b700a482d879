"""A .pxd beside a module names the fields of its classes for the build that compiles it: they are the class's slots.

Of a dataclass they are the fields, and it has no slots: the compiler, which makes the struct, does not know the word.
"""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STUBS = sorted(path for path in (ROOT / "edgecache").glob("*/*.pxd") if path.parent.name != "_native")
CLASS = re.compile(r"^cdef class (\w+)(?:\(\w+\))?:\n((?:    cdef .*\n)+)", re.MULTILINE)
FIELDS = re.compile(r"^    cdef (?:public |readonly )?object (.*)$", re.MULTILINE)


def test_there_are_some() -> None:
    assert STUBS


@pytest.mark.parametrize("stub", STUBS, ids=lambda path: path.stem)
def test_fields_are_those_of_the_class(stub: Path) -> None:
    module = importlib.import_module(".".join(stub.relative_to(ROOT).with_suffix("").parts))
    classes = CLASS.findall(stub.read_text())
    assert classes
    for name, body in classes:
        fields = sorted(field.strip() for line in FIELDS.findall(body) for field in line.split(","))
        assert fields == sorted(_fields(getattr(module, name))), name


def _fields(cls: type) -> list[str]:
    if not dataclasses.is_dataclass(cls):
        return list(cls.__slots__)  # type: ignore[attr-defined]
    assert "__slots__" not in vars(cls), "the compiler takes no slots=True"
    return [field.name for field in dataclasses.fields(cls)]
