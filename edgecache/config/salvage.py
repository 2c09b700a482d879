"""What can be read of a configuration that is not valid, so that checks across keys need not wait for it to be.

Nothing is made up: where a text cannot be read stands `Unread`, for a list one hole, for a section one of holes; other
keys have their defaults. Checks pass over `Unread`, and conclude nothing from what it may have said.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeVar, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from edgecache.config.options import fields_of, item_of, section_of, strip

Model = TypeVar("Model", bound=BaseModel)
_NO_HOLE = object()


class Unread(str):
    """Stands where a text could not be read, or was perhaps meant by a key that is not known."""

    __slots__ = ()


def salvage(section: type[Model], data: object) -> Model:
    """A section less its broken parts; positions in lists stay. Only for checks: it is not valid."""
    given: Mapping[object, Any] = data if isinstance(data, dict) else {}
    fields = fields_of(section)
    unclear = not given or not given.keys() <= fields.keys()  # a key that is absent may have been meant
    values: dict[str, Any] = {}
    for key, info in fields.items():
        if key in given:
            value = _read(info.rebuild_annotation(), given[key])
        elif unclear or info.is_required():
            value = _hole(info.annotation)
        else:
            continue
        if value is not _NO_HOLE:
            values[key] = value
    return section.model_construct(**values)


def is_unread(value: object) -> bool:
    return isinstance(value, Unread)


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _read(annotation: Any, data: object) -> object:
    try:
        return _adapter(annotation).validate_python(data)
    except ValidationError:
        pass
    inner = section_of(annotation)
    if inner is not None:
        return salvage(inner, data)
    item = item_of(annotation)
    if item is None or not isinstance(data, list) or not data:
        return _hole(annotation)
    values = tuple(_read(item, one) for one in data)
    return _NO_HOLE if _NO_HOLE in values else values


def _hole(annotation: Any) -> object:
    inner = section_of(annotation)
    if inner is not None:
        return salvage(inner, None)
    item = item_of(annotation)
    if item is not None:
        hole = _hole(item)
        return _NO_HOLE if hole is _NO_HOLE else (hole,)
    bare = strip(annotation)
    return Unread() if bare is str or get_origin(bare) is Literal else _NO_HOLE
