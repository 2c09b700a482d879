"""File, environment and command line become a `CoordinatorFile`, or one `ConfigError` that lists everything wrong."""

import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from edgecache.config import certificates
from edgecache.config.coordinator import CoordinatorFile, CoordinatorTlsServerConfig
from edgecache.config.listeners import CertificateConfig
from edgecache.config.load import (
    ConfigError,
    Override,
    Problem,
    Where,
    by_place,
    explain,
    from_environment,
    from_overrides,
    put_at,
    read_file,
    whereabouts,
)
from edgecache.config.options import Path, options, show, spell
from edgecache.http.clock import wall_clock


@dataclass(frozen=True, slots=True)
class LoadedCoordinator:
    config: CoordinatorFile
    warnings: tuple[str, ...]


def is_coordinator(file: FilePath) -> bool:
    """Is this a coordinator's configuration, rather than an edge's? Raises `ConfigError`."""
    return "coordinator" in read_file(file)[0].data


def load_coordinator(
    file: FilePath | None = None, *, environ: Mapping[str, str] | None = None, overrides: Iterable[Override] = ()
) -> LoadedCoordinator:
    """Reads `file` (if any) and the certificate files it names; changes nothing. Raises `ConfigError`."""
    document, problems = read_file(file)
    data: dict[str, Any] = document.data
    given: dict[Path, str] = {}
    warnings: list[str] = []
    edges = {option.variable for option in options()}
    environ = {name: text for name, text in (environ or {}).items() if not _of_an_edge(name, edges)}
    found = from_environment(environ, problems, warnings, CoordinatorFile)
    for path, value, where in (*found, *from_overrides(overrides)):
        if path[0] == "coordinator" and isinstance(data.get("coordinator"), str):
            data["coordinator"] = {"listen": data["coordinator"]}
        put_at(data, path, value)
        given[path] = where
    where_is = whereabouts(file, document, given)
    config = None
    try:
        config = CoordinatorFile.model_validate(data)
    except ValidationError as error:
        problems += explain(error.errors(include_url=False), where_is, data, CoordinatorFile)
    if config is not None and config.coordinator.tls is not None:
        problems += _check_tls(config.coordinator.tls, where_is, warnings)
    if config is None or problems:
        raise ConfigError(sorted(problems, key=by_place))
    return LoadedCoordinator(config, tuple(warnings))


def _of_an_edge(variable: str, edges: set[str]) -> bool:
    """Set for an edge on the same machine: no slip of the pen."""
    return variable in edges and not variable.startswith(("EDGECACHE_COORDINATOR_", "EDGECACHE_LOG_"))


def _check_tls(tls: CoordinatorTlsServerConfig, where_is: Where, warnings: list[str]) -> Iterator[Problem]:
    certificate = CertificateConfig(cert=tls.cert, key=tls.key)
    try:
        warning = certificates.ending(certificate, certificates.read(certificate), wall_clock())
    except certificates.CertificateError as error:
        path: Path = ("coordinator", "tls", error.key)
        yield Problem(where_is(path), spell(path), show(getattr(certificate, error.key)), error.expected)
    else:
        warnings += [warning] if warning else []
    if tls.client_ca is not None:
        path = ("coordinator", "tls", "client_ca")
        try:
            ssl.create_default_context(cafile=tls.client_ca)
        except OSError as error:  # ssl.SSLError is one
            detail = error.strerror or type(error).__name__
            yield Problem(where_is(path), spell(path), show(tls.client_ca), f"a PEM file of certificates ({detail})")
