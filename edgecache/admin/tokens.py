"""The admin token: made at first start, kept in a file only its owner can read, never logged.

Who may change state proves it with this token. In memory only its hash is held, and comparing takes the same time
whatever was given.
"""

import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

_log = logging.getLogger("edgecache.admin")

VARIABLE = "EDGECACHE_TOKEN"
LEAST_LENGTH = 16
"""Characters; shorter ones can be guessed over a network."""
_MADE_BYTES = 32


class TokenError(Exception):
    """A token that cannot be read, made or used; the message is for the operator and never holds the token."""


class TokenCheck:
    """Knows the token without holding it."""

    __slots__ = ("_digest",)

    def __init__(self, token: str) -> None:
        self._digest = hashlib.sha256(token.encode()).digest()

    def __call__(self, given: str) -> bool:
        return hmac.compare_digest(self._digest, hashlib.sha256(given.encode()).digest())


def default_path(environ: Mapping[str, str], *, root: bool) -> Path:
    """Where an edge keeps its token and its clients look for it, where nothing is configured."""
    if root:
        return Path("/var/lib/edgecache/token")
    state = environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else Path(environ.get("HOME") or "~").expanduser() / ".local/state"
    return base / "edgecache/token"


def read(path: Path) -> str:
    """The token in this file. Raises `TokenError`."""
    try:
        text = path.read_text(encoding="ascii")
    except OSError as error:
        raise TokenError(f"cannot read the token file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TokenError(f"the token file {path} holds something else than a token") from None
    return checked(text, f"the token file {path}")


def checked(text: str, where: str) -> str:
    """A token without the white space around it. Raises `TokenError`."""
    token = text.strip()
    if len(token) < LEAST_LENGTH:
        raise TokenError(f"{where} holds no token of at least {LEAST_LENGTH} characters")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise TokenError(f"{where} holds something else than a token")
    return token


def read_or_make(path: Path) -> str:
    """The token in this file, made if the file is not there. Two that start at once get the same one.

    Raises `TokenError`.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        _make(path)
        _log.info("made an admin token; its file is %s", path)
    except OSError as error:
        raise TokenError(f"cannot read the token file {path}: {error.strerror}") from None
    else:
        if mode & 0o077:
            _log.warning(
                "the token file %s can be read by others than its owner", path, extra={"remedy": f"chmod 600 {path}"}
            )
    return read(path)


def _make(path: Path) -> None:
    """Written aside and linked into place, so that nobody ever reads half a token or a file others may read."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(fd, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(_MADE_BYTES) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(aside, path)
        except FileExistsError:
            pass  # another one was quicker: its token counts
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise TokenError(
            f"cannot make the token file {path}: {error.strerror}; "
            f"choose another with admin.token_file or set {VARIABLE}"
        ) from None


def for_server(token_file: str | None, environ: Mapping[str, str], *, root: bool) -> str:
    """The token an edge asks for: EDGECACHE_TOKEN, else the configured file, else the default one; files are made.

    Raises `TokenError`.
    """
    if given := environ.get(VARIABLE):
        return checked(given, VARIABLE)
    return read_or_make(Path(token_file) if token_file else default_path(environ, root=root))


def for_client(token_file: str | None, environ: Mapping[str, str], *, root: bool) -> str | None:
    """The token to show an edge: the given file, else EDGECACHE_TOKEN, else the default file; None where there is none.

    Raises `TokenError` for a file that was asked for and cannot be used.
    """
    if token_file:
        return read(Path(token_file))
    if given := environ.get(VARIABLE):
        return checked(given, VARIABLE)
    path = default_path(environ, root=root)
    try:
        return read(path) if path.exists() else None
    except (TokenError, OSError):
        return None  # another user's edge: it will say that it needs the token
