import io
import json
import logging
from collections.abc import Iterator

import pytest

from edgecache.observe import log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    logger = logging.getLogger("edgecache")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def said(out: io.StringIO, form: str = "auto", level: str = "info") -> str:
    log.set_up(level, form, out)
    logger = logging.getLogger("edgecache.admin")
    logger.debug("hidden unless asked for")
    logger.warning("disk %s is full", "/x\n\x1b[2J", extra={"remedy": "free space", "free_bytes": 0})
    return out.getvalue()


@pytest.mark.parametrize(
    ("out", "form"), [(io.StringIO(), "auto"), (Terminal(), "json")], ids=["auto-elsewhere", "asked-for"]
)
def test_json(out: io.StringIO, form: str) -> None:
    (line,) = said(out, form).splitlines()
    read = json.loads(line)
    assert read.pop("time").endswith("Z")
    assert read == {
        "level": "warning",
        "logger": "edgecache.admin",
        "message": "disk /x\n\x1b[2J is full",
        "remedy": "free space",
        "free_bytes": 0,
    }


@pytest.mark.parametrize(("out", "form"), [(Terminal(), "auto"), (io.StringIO(), "human")], ids=["auto", "asked-for"])
def test_for_people(out: io.StringIO, form: str) -> None:
    (line,) = said(out, form).splitlines()
    assert line.endswith("disk /x\\n\\x1b[2J is full (free space)")
    assert ("\x1b[33mwarning" in line) == out.isatty()


def test_the_level() -> None:
    assert "hidden unless asked for" in said(io.StringIO(), level="debug")
    assert said(io.StringIO(), level="error") == ""


@pytest.mark.parametrize("form", ["human", "json"])
def test_errors_carry_their_trace(form: str) -> None:
    out = io.StringIO()
    log.set_up("info", form, out)
    try:
        raise ValueError("the cause")
    except ValueError:
        logging.getLogger("edgecache").exception("it failed")
    assert "the cause" in out.getvalue()
    assert "Traceback" in out.getvalue()


def test_setting_up_again_replaces() -> None:
    first, second = io.StringIO(), io.StringIO()
    said(first)
    assert len(said(second).splitlines()) == 1
    assert len(first.getvalue().splitlines()) == 1
