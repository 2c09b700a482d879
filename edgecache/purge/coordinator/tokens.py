"""Who may do what: tokens with scopes, in a file that holds only their hashes.

A token is 256 random bits, so its SHA-256 says nothing about it and needs no salt. Given ones are compared with all
that are known, each in the same time whatever was given. The file is replaced in one step, and read again when it has
changed: a token that was removed is gone within a second, without a restart.

    {"version": 1, "tokens": [{"name": …, "sha256": HEX, "scopes": […], "sites": […], "hosts": […], "rate": N|null,
                               "created": SECONDS}, …]}
"""

import dataclasses
import hashlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from edgecache.purge.message import PurgeOrder

_log = logging.getLogger("edgecache.purge")

VERSION: Final = 1
MOST: Final = 1000
PREFIX: Final = "ecp_"
"""In front of every token, so that one that leaks is found by whoever searches for secrets."""
LOOK_S: Final = 1.0
"""How often the file is looked at for changes."""


class Scope(StrEnum):
    PURGE = "purge"
    """Purge, and see what became of it; within `sites` and `hosts`, where these are given."""
    EDGE = "edge"
    """Subscribe."""
    READ = "read"
    """Figures, edges, metrics."""
    ADMIN = "admin"
    """All of these, and the audit record."""


class TokensError(Exception):
    """A tokens file that cannot be used; one line for the operator."""


class Denied(Exception):
    """The token does not allow this; one line for whoever asked."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one token allows."""

    name: str
    digest: bytes
    scopes: frozenset[Scope]
    sites: tuple[str, ...] = ()
    """The sites whose keys and whose everything it may purge; none: all, and everything at once too."""
    hosts: tuple[str, ...] = ()
    """Where `sites` are given: the hosts it may purge by URL, host and prefix; "*." for every name below."""
    rate: float | None = None
    """Purges per second; None: as configured."""
    created: float = 0.0

    def allows(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def narrowed(self, order: PurgeOrder) -> PurgeOrder:
        """The order as this token may give it: it names the token's site, where there is one. Raises `Denied`."""
        if not self.sites or Scope.ADMIN in self.scopes:
            return order
        site = order.site
        if site is None and len(self.sites) == 1:
            site = self.sites[0]
        if site is None:
            raise Denied(f"this token purges sites by name; name one of {', '.join(self.sites)}")
        if site not in self.sites:
            raise Denied(f"this token does not purge the site {site!r}")
        patterns = tuple(pattern.host or "of every host" for pattern in order.patterns)
        named = (("URL", order.urls), ("host", order.hosts), ("prefix", order.prefixes), ("pattern on", patterns))
        for what, targets in named:
            for target in targets:
                if not self._own(_host_of(target)):
                    raise Denied(f"this token does not purge the {what} {target[:100]!r}")
        if site == order.site:
            return order
        return dataclasses.replace(order, site=site)

    def _own(self, host: str) -> bool:
        return any(host == own or (own.startswith("*.") and host.endswith(own[1:])) for own in self.hosts)


def _host_of(target: str) -> str:
    """Of a URL, a prefix or a host, in lower case and without its port."""
    try:
        return (urlsplit(target if "://" in target else f"//{target}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


class TokenBook:
    """The tokens of a file, as last read."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        """`clock`: one that never goes back. Raises `TokensError`."""
        self._path = path
        self._clock = clock
        self._stamp: tuple[int, ...] = ()
        self._looked = clock()
        self._grants: tuple[Grant, ...] = ()
        self._known: frozenset[Grant] = frozenset()
        self.read()

    def __len__(self) -> int:
        return len(self._grants)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(grant.name for grant in self._grants)

    def read(self) -> None:
        """Again. What is wrong changes nothing. Raises `TokensError`."""
        self._stamp = _stamp(self._path)
        self._grants = read(self._path)
        self._known = frozenset(self._grants)

    def holds(self, grant: Grant) -> bool:
        """Is it still there, and unchanged?"""
        self._look()
        return grant in self._known

    def find(self, token: str) -> Grant | None:
        self._look()
        given = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
        found = None
        for grant in self._grants:
            if hmac.compare_digest(grant.digest, given):
                found = grant
        return found

    def _look(self) -> None:
        now = self._clock()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        if _stamp(self._path) == self._stamp:
            return
        try:
            self.read()
        except TokensError as error:
            _log.error("the tokens are not read again: %s", error)
        else:
            _log.info("%d tokens in %s", len(self), self._path)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ino, found.st_size


def read(path: Path) -> tuple[Grant, ...]:
    """None where the file is not there. Raises `TokensError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise TokensError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TokensError(f"{path} is no file of tokens") from None
    try:
        body = json.loads(text)
        if body["version"] != VERSION:
            raise TokensError(f"{path} is of version {body['version']!r}, which this program does not know")
        grants = tuple(_grant(row) for row in body["tokens"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TokensError(f"{path} is no file of tokens ({type(error).__name__}: {error})") from None
    if len({grant.name for grant in grants}) != len(grants):
        raise TokensError(f"{path} has two tokens of one name")
    return grants


def _grant(row: dict[str, Any]) -> Grant:
    digest = bytes.fromhex(row["sha256"])
    if len(digest) != 32:
        raise ValueError("not a SHA-256")
    rate = row.get("rate")
    return Grant(
        name=_text(row["name"]),
        digest=digest,
        scopes=frozenset(Scope(_text(scope)) for scope in row["scopes"]),
        sites=tuple(_text(site) for site in row.get("sites", ())),
        hosts=tuple(_text(host).lower() for host in row.get("hosts", ())),
        rate=None if rate is None else float(rate),
        created=float(row.get("created", 0)),
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable() or len(value) > 200:
        raise ValueError(f"{value!r} is no name")
    return value


def add(
    path: Path,
    name: str,
    scopes: Iterable[Scope],
    *,
    now: float,
    sites: Iterable[str] = (),
    hosts: Iterable[str] = (),
    rate: float | None = None,
) -> str:
    """Make a token. It is returned and kept nowhere. Raises `TokensError`."""
    grants = read(path)
    if any(grant.name == name for grant in grants):
        raise TokensError(f"there is a token {name!r} already; remove it first")
    if len(grants) >= MOST:
        raise TokensError(f"there are {MOST} tokens already")
    token = PREFIX + secrets.token_urlsafe(32)
    row = {
        "name": name,
        "sha256": hashlib.sha256(token.encode()).hexdigest(),
        "scopes": sorted(scopes),
        "sites": list(sites),
        "hosts": list(hosts),
        "rate": rate,
        "created": now,
    }
    try:
        made = _grant(row)
    except ValueError as error:
        raise TokensError(str(error)) from None
    if not made.scopes:
        raise TokensError("a token needs a scope")
    if made.hosts and not made.sites:
        raise TokensError("hosts go with a site: without one a token purges everywhere")
    _write(path, (*grants, made))
    return token


def remove(path: Path, name: str) -> None:
    """Raises `TokensError`."""
    grants = read(path)
    rest = tuple(grant for grant in grants if grant.name != name)
    if len(rest) == len(grants):
        raise TokensError(f"there is no token {name!r}")
    _write(path, rest)


def _write(path: Path, grants: tuple[Grant, ...]) -> None:
    rows = [
        {
            "name": grant.name,
            "sha256": grant.digest.hex(),
            "scopes": sorted(grant.scopes),
            "sites": list(grant.sites),
            "hosts": list(grant.hosts),
            "rate": grant.rate,
            "created": grant.created,
        }
        for grant in grants
    ]
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                json.dump({"version": VERSION, "tokens": rows}, file, indent=1)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise TokensError(f"cannot write {path}: {error.strerror}") from None
