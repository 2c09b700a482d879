"""Every option as a path of keys, found by walking the models: its environment variable, type and field.

What can be set, what it is called and what it is near to when mistyped is worked out here from `model`, so that the
file, the environment, error messages and the reference page cannot disagree.
"""

import difflib
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edgecache.config.fields import key_of
from edgecache.config.model import Config

Path = tuple[str | int, ...]
"""Keys and list positions from the top of the configuration."""

PREFIX = "EDGECACHE_"
_USERINFO = re.compile(r"//[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class Option:
    """One key that holds a value (not a section)."""

    path: tuple[str, ...]
    field: FieldInfo
    many: bool
    """A list: in the environment written with commas, or in YAML's own form."""
    models: bool
    """A list of sections."""

    @property
    def variable(self) -> str:
        return PREFIX + "_".join(self.path).upper()


def strip(annotation: object) -> object:
    """An annotation less `Annotated`, and less `None` where that is all a union adds."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, types.UnionType):
            rest = [arg for arg in get_args(annotation) if arg is not type(None)]
            if len(rest) != 1:
                return annotation
            annotation = rest[0]
        else:
            return annotation


def section_of(annotation: object) -> type[BaseModel] | None:
    """The section a key holds, if it holds one."""
    bare = strip(annotation)
    return bare if isinstance(bare, type) and issubclass(bare, BaseModel) else None


def item_of(annotation: object) -> object | None:
    """What a list holds, if the key holds a list."""
    bare = strip(annotation)
    return get_args(bare)[0] if get_origin(bare) is tuple else None


def fields_of(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """A section's keys."""
    return {key_of(name): info for name, info in section.model_fields.items()}


def _walk(section: type[BaseModel], path: tuple[str, ...]) -> Iterator[Option]:
    for key, info in fields_of(section).items():
        inner = section_of(info.annotation)
        if inner is not None:
            yield from _walk(inner, (*path, key))
            continue
        item = item_of(info.annotation)
        yield Option((*path, key), info, item is not None, item is not None and section_of(item) is not None)


@cache
def options(root: type[BaseModel] = Config) -> tuple[Option, ...]:
    """Every option, in the order of the models. `root`: what the file is, an edge's configuration or another."""
    return tuple(_walk(root, ()))


def section_at(path: Path, root: type[BaseModel] = Config) -> type[BaseModel] | None:
    """The section at this path, if there is one."""
    annotation: object = root
    for step in path:
        if isinstance(step, int):
            annotation = item_of(annotation)
        else:
            section = section_of(annotation)
            info = fields_of(section).get(step) if section is not None else None
            annotation = info.annotation if info is not None else None
        if annotation is None:
            return None
    return section_of(annotation)


def field_at(path: Path, root: type[BaseModel] = Config) -> FieldInfo | None:
    """The key at this path, if there is such a key."""
    section = section_at(path[:-1], root) if path else None
    return fields_of(section).get(str(path[-1])) if section is not None else None


def near(word: str, words: list[str]) -> str | None:
    """The one that was probably meant."""
    found = difflib.get_close_matches(word.lower().replace("-", "_"), words, n=1, cutoff=0.7)
    return found[0] if found else None


def spell(path: Path) -> str:
    """A path as people write it: sites[0].cache.query.drop"""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def show(value: Any) -> str:
    """A value as an error shows it: one short line, less the password somebody may have put into a URL."""
    text = _USERINFO.sub("//***@", value) if isinstance(value, str) else repr(value)
    text = repr(text)[1:-1] if not text.isprintable() else text
    return text if len(text) <= 80 else text[:77] + "…"
