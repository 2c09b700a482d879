import logging
import os
import stat
import threading
from pathlib import Path

import pytest

from edgecache.admin import tokens
from edgecache.admin.tokens import TokenCheck, TokenError

TOKEN = "a-token-of-some-length"


def test_the_first_start_makes_a_token_only_its_owner_can_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state" / "edgecache" / "token"
    old = os.umask(0)
    try:
        with caplog.at_level(logging.DEBUG):
            token = tokens.read_or_make(path)
    finally:
        os.umask(old)
    assert len(token) >= 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert tokens.read_or_make(path) == token
    assert [entry.name for entry in path.parent.iterdir()] == ["token"]
    assert token not in caplog.text


def test_edges_that_start_at_once_get_the_same_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    gate = threading.Barrier(8)
    found = []

    def start() -> None:
        gate.wait()
        found.append(tokens.read_or_make(path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_token_file_others_can_read_is_pointed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o644)
    assert tokens.read_or_make(path) == TOKEN
    (record,) = caplog.records
    assert "chmod 600" in record.remedy  # type: ignore[attr-defined]
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("content", [b"", b"short", b"\n\n", b"two words that are long", b"\xff" * 32, b"a\x00" * 20])
def test_what_is_no_token(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(TokenError) as caught:
        tokens.read_or_make(path)
    assert str(path) in str(caught.value)


def test_a_token_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TokenError, match=r"admin\.token_file"):
        tokens.for_server("/proc/edgecache/token", {}, root=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(TokenError, match="Not a directory"):
        tokens.for_server(str(tmp_path / "file" / "token"), {}, root=False)


@pytest.mark.parametrize(
    ("environ", "root", "path"),
    [
        pytest.param({"XDG_STATE_HOME": "/s", "HOME": "/h"}, False, "/s/edgecache/token", id="xdg"),
        pytest.param(
            {"XDG_STATE_HOME": "relative", "HOME": "/h"}, False, "/h/.local/state/edgecache/token", id="odd-xdg"
        ),
        pytest.param({"HOME": "/h"}, False, "/h/.local/state/edgecache/token", id="home"),
        pytest.param({"XDG_STATE_HOME": "/s"}, True, "/var/lib/edgecache/token", id="root"),
    ],
)
def test_the_default_place(environ: dict[str, str], root: bool, path: str) -> None:
    assert tokens.default_path(environ, root=root) == Path(path)


def test_who_looks_where(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    assert tokens.for_client(None, environ, root=False) is None
    made = tokens.for_server(None, environ, root=False)
    assert tokens.for_client(None, environ, root=False) == made
    assert tokens.for_client(None, environ | {"EDGECACHE_TOKEN": TOKEN}, root=False) == TOKEN
    assert tokens.for_server(None, environ | {"EDGECACHE_TOKEN": TOKEN}, root=False) == TOKEN
    other = tmp_path / "other"
    other.write_text(TOKEN + "2\n")
    assert tokens.for_client(str(other), environ | {"EDGECACHE_TOKEN": TOKEN}, root=False) == TOKEN + "2"
    with pytest.raises(TokenError):
        tokens.for_client(str(tmp_path / "nowhere"), environ, root=False)
    with pytest.raises(TokenError, match="EDGECACHE_TOKEN"):
        tokens.for_server(None, {"EDGECACHE_TOKEN": "short"}, root=False)


def test_only_the_whole_token_is_right() -> None:
    check = TokenCheck(TOKEN)
    assert check(TOKEN)
    assert not any(check(wrong) for wrong in ("", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ä"))
    assert TOKEN not in repr(check)
