"""File, environment and command line become one `Config`, or one `ConfigError` that lists everything wrong.

The command line comes before the environment, the environment before the file, the file before the defaults.
"""

import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edgecache.config import certificates, source
from edgecache.config.model import Config
from edgecache.config.options import (
    PREFIX,
    Option,
    Path,
    field_at,
    fields_of,
    near,
    options,
    section_at,
    show,
    spell,
)
from edgecache.config.units import format_duration, format_size
from edgecache.http.clock import wall_clock

RESERVED = frozenset(PREFIX + word for word in ("CONFIG", "TO", "TOKEN", "TOKEN_FILE"))
"""Variables that are not configuration keys: the file to read, and what clients of the admin API use."""

SHORTHANDS: dict[tuple[str, ...], str] = {("origin",): "url"}
"""Sections that may be written as the value of one key."""


Where = Callable[[Path], str]
"""The file and line of a path, or the variable or option that set it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong."""

    where: str
    """The file and line, the variable, or the command-line option."""
    path: str
    value: str | None
    """What was given, shortened; None where something is missing."""
    expected: str

    def __str__(self) -> str:
        given = "" if self.value is None else f" = {self.value}"
        return f"{self.where}: {self.path or 'configuration'}{given}: expected {self.expected}"


class ConfigError(Exception):
    """A configuration that cannot be used; the command line exits with status 2."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Loaded:
    config: Config
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Override:
    """A value from the command line and the option it came by."""

    path: tuple[str, ...]
    value: object
    option: str


def load(
    file: FilePath | None = None, *, environ: Mapping[str, str] | None = None, overrides: Iterable[Override] = ()
) -> Loaded:
    """Reads `file` (if any) and the certificate files it names; changes nothing. Raises `ConfigError`."""
    document, problems = read_file(file)
    data: dict[str, Any] = document.data
    given: dict[Path, str] = {}
    warnings: list[str] = []
    for path, value, where in (*from_environment(environ or {}, problems, warnings), *from_overrides(overrides)):
        put_at(data, path, value)
        given[path] = where

    where_is = whereabouts(file, document, given)
    config = None
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        problems += explain(error.errors(include_url=False), where_is, data)
    if config is not None:
        problems += _check_files(config, where_is)
        problems += _check_certificates(config, where_is, warnings)
    if config is None or problems:
        raise ConfigError(sorted(problems, key=by_place))
    return Loaded(config, tuple(warnings))


def whereabouts(file: FilePath | None, document: source.Document, given: Mapping[Path, str]) -> Where:
    """`given`: what did not come from the file, and by what."""

    def where_is(path: Path) -> str:
        for cut in range(len(path), 0, -1):
            if path[:cut] in given:
                return given[path[:cut]]
        if file is None:
            return "configuration"
        line = document.line(path)
        return f"{file}:{line}" if line else str(file)

    return where_is


def by_place(problem: Problem) -> tuple[int, str]:
    """In the order of the file; what came from elsewhere first."""
    line = problem.where.rpartition(":")[2]
    return (int(line), "") if line.isdigit() else (0, problem.where)


def read_file(file: FilePath | None) -> tuple[source.Document, list[Problem]]:
    if file is None:
        return source.Document({}), []
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([Problem(str(file), "", None, f"a readable file ({error.strerror})")]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(str(file), "", None, f"UTF-8 text ({error.reason})")]) from None
    try:
        document = source.parse(text)
    except source.YamlError as error:
        raise ConfigError([Problem(f"{file}:{error.line}", "", None, f"YAML ({error.detail})")]) from None
    if document.data is None:
        document.data = {}
    if not isinstance(document.data, dict):
        raise ConfigError(
            [Problem(f"{file}:1", "", show(document.data), "keys and values, such as `origin: http://…`")]
        )
    return document, [
        Problem(f"{file}:{found.line}", spell(found.path), None, found.expected) for found in document.findings
    ]


def from_environment(
    environ: Mapping[str, str], problems: list[Problem], warnings: list[str], root: type[BaseModel] = Config
) -> list[tuple[tuple[str, ...], object, str]]:
    """Empty variables count as not given: compose files and unit files leave them so.

    Variables that are like no option are somebody else's: Kubernetes sets EDGECACHE_PORT and the like for a service
    of that name.
    """
    known = {option.variable: option for option in options(root)}
    shorthands = {PREFIX + "_".join(path).upper(): path for path in SHORTHANDS if section_at(path, root)}
    names = [name.removeprefix(PREFIX).lower() for name in (*known, *shorthands, *RESERVED)]
    found: list[tuple[tuple[str, ...], object, str]] = []
    for variable in sorted(environ):
        text = environ[variable].strip()
        if not variable.startswith(PREFIX) or not text or variable in RESERVED:
            continue
        if variable in shorthands:
            found.append((shorthands[variable], text, variable))
        elif variable in known:
            try:
                found.append((known[variable].path, _value(known[variable], text), variable))
            except source.YamlError as error:
                problems.append(Problem(variable, spell(known[variable].path), show(text), f"YAML ({error.detail})"))
        elif meant := near(variable.removeprefix(PREFIX), names):
            warnings.append(f"{variable} is not an option and is ignored; did you mean {(PREFIX + meant).upper()}?")
    return found


def _value(option: Option, text: str) -> object:
    if text[0] in "[{" and option.many:
        return source.parse(text).data
    if option.many:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def from_overrides(overrides: Iterable[Override]) -> list[tuple[tuple[str, ...], object, str]]:
    return [(override.path, override.value, override.option) for override in overrides]


def put_at(data: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    """Set one key, making the sections above it; a shorthand in the way is written out first."""
    here = data
    for depth, step in enumerate(path[:-1], 1):
        below = here.get(step)
        if isinstance(below, str) and path[:depth] in SHORTHANDS:
            below = {SHORTHANDS[path[:depth]]: below}
        elif not isinstance(below, dict):
            below = {}
        here[step] = below = dict(below)
        here = below
    old = here.get(path[-1])
    if path in SHORTHANDS and isinstance(old, dict):
        here[path[-1]] = {**old, SHORTHANDS[path]: value}
    else:
        here[path[-1]] = value


def raw(data: Any, path: Path) -> Any:
    """What was written at this path, before any conversion; None where nothing or no plain value was."""
    for step in path:
        if isinstance(step, int):
            data = data[step] if isinstance(data, list) and step < len(data) else None
        else:
            data = data.get(step) if isinstance(data, dict) else data
    return None if isinstance(data, dict | list) else data


def explain(
    errors: list[ErrorDetails], where_is: Where, data: dict[str, Any], root: type[BaseModel] = Config
) -> list[Problem]:
    """What pydantic found wrong, in words for people and with its place."""
    deeper = {error["loc"][:cut] for error in errors for cut in range(len(error["loc"]))}
    problems = []
    for error in errors:
        path: Path = error["loc"]
        if error["type"] == "too_short" and path in deeper:
            continue  # pydantic counts only the good members of a list; the bad ones have their own findings
        value = raw(data, path) if error["type"] != "missing" else None
        problems.append(
            Problem(where_is(path), spell(path), None if value is None else show(value), expectation(error, root))
        )
    return problems


def expectation(error: ErrorDetails, root: type[BaseModel] = Config) -> str:
    """What was expected, in words for people."""
    path, context = error["loc"], error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return _no_such_key(path, root)
        case "missing":
            info = field_at(path, root)
            return f"a value: {info.description}" if info is not None else "a value"
        case "value_error":
            return str(context["error"])
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            return _bound(path, error["type"], context, root)
        case "model_type" | "model_attributes_type" | "dict_type":
            section = section_at(path, root)
            keys = ", ".join(fields_of(section)) if section is not None else ""
            return f"a section with keys ({keys})" if keys else "a section with keys"
        case "tuple_type":
            given = error["input"]
            return f'a list: ["{show(given)}"]' if isinstance(given, str) and given else "a list"
        case "too_long" | "string_too_long":
            return f"at most {context['max_length']} {'characters' if 'string' in error['type'] else 'entries'}"
        case "too_short" | "string_too_short":
            return f"at least {context['min_length']} {'characters' if 'string' in error['type'] else 'entries'}"
        case "literal_error":
            return str(context["expected"]).replace("'", "")
        case "bool_type" | "bool_parsing":
            return "true or false"
        case "int_type" | "int_parsing" | "int_from_float" | "int_parsing_size":
            return "a whole number"
        case "float_type" | "float_parsing" | "finite_number":
            return "a number"
        case "string_type":
            return "text"
        case "string_pattern_mismatch":
            return "letters, digits and ._:-* without spaces"
        case _:
            return error["msg"]


def _no_such_key(path: Path, root: type[BaseModel]) -> str:
    section = section_at(path[:-1], root)
    keys = list(fields_of(section)) if section is not None else []
    meant = near(str(path[-1]), keys)
    if meant is not None:
        return f"a known key; did you mean {meant}?"
    elsewhere = [option for option in options(root) if option.path[-1] == path[-1]]
    if elsewhere:
        return f"a known key; did you mean {spell(elsewhere[0].path)}?"
    return f"a known key: one of {', '.join(keys)}"


_RELATION = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def _bound(path: Path, kind: str, context: Mapping[str, Any], root: type[BaseModel]) -> str:
    words, key = _RELATION[kind]
    return f"{words} {in_units(path, context[key], root)}"


def in_units(path: Path, value: float, root: type[BaseModel] = Config) -> str:
    """A number of this key in the unit it is written in."""
    section = section_at(path[:-1], root)
    info = field_at(path, root)
    name = next((name for name, one in section.model_fields.items() if one is info), "") if section else ""
    if name.endswith("_s"):
        return format_duration(value)
    if name.endswith("_bytes"):
        return format_size(int(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _check_files(config: Config, where_is: Where) -> list[Problem]:
    problems = []
    for index, site in enumerate(config.sites):
        ca_file = site.origin.tls.ca_file
        if ca_file is None:
            continue
        path: Path = ("origin",) if config.origin is not None else ("sites", index, "origin")
        path = (*path, "tls", "ca_file")
        try:
            ssl.create_default_context(cafile=ca_file)
        except OSError as error:  # ssl.SSLError is one
            detail = error.strerror or type(error).__name__
            expected = f"a PEM file of certificates ({detail})"
            problems.append(Problem(where_is(path), spell(path), show(ca_file), expected))
    return problems


def _check_certificates(config: Config, where_is: Where, warnings: list[str]) -> list[Problem]:
    problems = []
    now = wall_clock()
    for index, listen in enumerate(config.listen):
        if listen.tls is None:
            continue
        path: Path = ("listen", index, "tls")
        if listen.tls.ciphers is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(listen.tls.ciphers)
            except ssl.SSLError:
                ciphers: Path = (*path, "ciphers")
                expected = "a list of ciphers as OpenSSL writes it"
                problems.append(Problem(where_is(ciphers), spell(ciphers), show(listen.tls.ciphers), expected))
        for number, certificate in enumerate(listen.tls.certificates):
            try:
                warning = certificates.ending(certificate, certificates.read(certificate), now)
            except certificates.CertificateError as error:
                file: Path = (*path, "certificates", number, error.key)
                value = show(getattr(certificate, error.key))
                problems.append(Problem(where_is(file), spell(file), value, error.expected))
            else:
                warnings += [warning] if warning else []
    return problems
