"""The page docs/configuration.md, made from the models: `python -m edgecache.config.reference [FILE]`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from edgecache.config.coordinator import CoordinatorConfig
from edgecache.config.fields import key_of
from edgecache.config.geodns import CheckConfig, GeoDnsConfig
from edgecache.config.load import SHORTHANDS
from edgecache.config.model import Config
from edgecache.config.options import PREFIX, item_of, section_of, strip
from edgecache.config.units import Address, format_duration, format_size

_HEAD = """\
# Configuration

<!-- Made by `python -m edgecache.config.reference docs/configuration.md`: change the models, not this page. -->

`edgecache serve -c FILE` reads YAML. Every key is optional except an origin. `edgecache check FILE` reports every
problem at once, each with its line, the value and what was expected.

```yaml
origin: http://127.0.0.1:8000
```

- Every key outside a list is an environment variable too, named in the tables: `memory.size` is
  `EDGECACHE_MEMORY_SIZE`. Lists are written with commas, or in YAML's own form (`[a, b]`). An empty variable counts as
  not given. The command line comes before the environment, the environment before the file.
- **Sizes**: `64KiB`, `256MiB`, `1GiB` (powers of 1024), `1MB`, `1GB` (powers of 1000), or a number of octets.
- **Durations**: `500ms`, `30s`, `5m`, `1h30m`, `1d`, `1w`, or a number of seconds.
- **Addresses**: `127.0.0.1:8080`, `[::1]:8080`, or `:80` for every address of the machine. Port 0: the system chooses.
- Relative paths start at the working directory.
- `EDGECACHE_CONFIG` names the file. `EDGECACHE_TOKEN` holds the admin token itself, for the edge and its clients alike;
  it comes before `admin.token_file`. `EDGECACHE_TO` and `EDGECACHE_TOKEN_FILE` are for the clients only.
"""


def _kind(name: str, info: FieldInfo) -> str:
    bare = strip(info.annotation)
    if name.endswith("_bytes"):
        return "size"
    if name.endswith("_s"):
        return "duration"
    if get_origin(bare) is Literal:
        return " \\| ".join(f"`{word}`" for word in get_args(bare))
    if item_of(info.annotation) is not None:
        return "list"
    names: dict[Any, str] = {Address: "address", int: "number", float: "number", bool: "yes or no", str: "text"}
    return names[bare]


def _show(name: str, value: Any) -> str:
    if name.endswith("_bytes"):
        return format_size(value)
    if name.endswith("_s"):
        return format_duration(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, BaseModel):
        return ", ".join(_show(key, getattr(value, key)) for key in value.model_fields_set)
    if isinstance(value, tuple):
        return "[" + ", ".join(_show(name, item) for item in value) + "]"
    return str(value)


def _default(name: str, info: FieldInfo) -> str:
    value = info.default
    if value is PydanticUndefined or value is None:
        return ""
    return f"`{_show(name, value)}`"


def _bounds(name: str, info: FieldInfo) -> str:
    found = {}
    for constraint in info.metadata:
        for attribute in ("ge", "gt", "le", "lt", "max_length"):
            if (value := getattr(constraint, attribute, None)) is not None:
                found[attribute] = value
    if "ge" in found and "le" in found:
        return f"{_show(name, found['ge'])} to {_show(name, found['le'])}."
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    text = ", ".join(f"{words[key]} {_show(name, value)}" for key, value in found.items() if key in words)
    return text[:1].upper() + text[1:] + "." if text else ""


def _rows(section: type[BaseModel], path: tuple[str, ...], *, listed: bool) -> Iterator[str]:
    for name, info in section.model_fields.items():
        if section_of(info.annotation) is not None:
            continue
        item = item_of(info.annotation)
        key = key_of(name)
        variable = "" if listed else f"`{PREFIX}{'_'.join((*path, key)).upper()}`"
        kind = "list of sections" if item is not None and section_of(item) is not None else _kind(name, info)
        text = " ".join(part for part in (info.description or "", _bounds(name, info)) if part)
        required = "**required**" if info.is_required() else _default(name, info)
        yield f"| `{key}` | {kind} | {required} | {text} | {variable} |"


def _section(section: type[BaseModel], path: tuple[str, ...], *, listed: bool, many: bool = True) -> Iterator[str]:
    """`listed`: its keys have no variables. `many`: there may be several of it."""
    title = ".".join(path) + ("[]" if listed and many and len(path) == 1 else "") if path else "Top level"
    yield f"\n## {title}\n"
    if section.__doc__:
        yield " ".join(section.__doc__.split()) + "\n"
    if path in SHORTHANDS:
        variable = PREFIX + "_".join(path).upper()
        yield f"`{variable}` sets the {SHORTHANDS[path]}. Without the section, `sites` is needed.\n"
    rows = list(_rows(section, path, listed=listed))
    if rows:
        heads = ["key", "kind", "default", "meaning", "variable"]
        yield "| " + " | ".join(heads if not listed else [*heads[:-1], ""]) + " |"
        yield "|---|---|---|---|---|"
        yield from rows
    for name, info in section.model_fields.items():
        inner, item = section_of(info.annotation), item_of(info.annotation)
        below = (*path, key_of(name))
        if inner is not None and listed and inner.__name__ in ("OriginConfig", "CacheConfig"):
            yield f"\n`{key_of(name)}`: {info.description} The keys are those of [`{key_of(name)}`](#{key_of(name)})."
        elif inner is CheckConfig and path:
            yield "\n`check`: How it is checked, instead of as the top level's [`check`](#check) says. The same keys."
        elif inner is not None:
            yield from _section(inner, below, listed=listed, many=False)
        elif item is not None and (listed_section := section_of(item)) is not None:
            yield from _section(listed_section, below, listed=True)


_COORDINATOR = """
# The coordinator's file

`edgecache coordinator -c FILE` reads a file of its own. Beside the section `coordinator` it has `log.level` and
`log.format`, with the meaning they have for an edge. Every key is optional, and so is the file. SIGHUP takes over
`rate`, `burst`, `wait_timeout`, `log`, the certificates and the tokens; anything else needs a restart.
"""


_GEODNS = """
# The file of GeoDNS

`edgecache geodns -c FILE` reads a file of its own, by these keys from the top; PoPs and zones are needed. `listen` has
the variable `EDGECACHE_GEODNS_LISTEN`, the file itself `EDGECACHE_GEODNS_CONFIG`. SIGHUP takes everything over but
`workers` from or to 0. See [GeoDNS](geodns.md).
"""


def page() -> str:
    """The whole page."""
    edge = "\n".join(_section(Config, (), listed=False))
    coordinator = "\n".join(_section(CoordinatorConfig, ("coordinator",), listed=False))
    geodns = "\n".join(_section(GeoDnsConfig, (), listed=True))
    return f"{_HEAD}{edge}\n{_COORDINATOR}{coordinator}\n{_GEODNS}{geodns}\n"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
