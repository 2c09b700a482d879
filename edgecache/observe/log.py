"""What edgecache says of itself: one line per message to standard error, for people on a terminal, JSON elsewhere.

A message that somebody should act on says what to do: `log.warning("…", extra={"remedy": "…"})`. Whatever else is
given in `extra` becomes a field of the JSON form.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {"message", "asctime", "taskName"}
_COLOURS = {"DEBUG": "2", "INFO": "36", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}


def _time(record: logging.LogRecord) -> str:
    stamp = datetime.fromtimestamp(record.created, UTC)
    return stamp.strftime("%Y-%m-%dT%H:%M:%S.") + f"{stamp.microsecond // 1000:03d}Z"


def _printable(text: str) -> str:
    """One line: what a stranger sent cannot end it, nor steer a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class HumanFormatter(logging.Formatter):
    """12:30:00 warning: message (what to do)"""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        if self._colour:
            level = f"\x1b[{_COLOURS.get(record.levelname, '0')}m{level}\x1b[0m"
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        remedy = getattr(record, "remedy", None)
        text = _printable(record.getMessage()) + (f" ({_printable(str(remedy))})" if remedy else "")
        lines = [f"{clock} {level}: {text}"]
        if record.exc_info:
            lines.append(self.formatException(record.exc_info))
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """One object per line."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def set_up(level: str = "info", form: str = "auto", stream: TextIO | None = None) -> None:
    """Replace what the `edgecache` logger does. `form` is LogConfig.format; `stream` defaults to standard error."""
    out = sys.stderr if stream is None else stream
    terminal = out.isatty()
    human = form == "human" or (form == "auto" and terminal)
    handler = logging.StreamHandler(out)
    handler.setFormatter(HumanFormatter(colour=terminal) if human else JsonFormatter())
    logger = logging.getLogger("edgecache")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
