"""HTTP-date (RFC 9110 §5.6.7): the three formats a recipient must read, and the one a sender must write.

Strict: what does not match one of the three grammars, or names a day that does not exist, is None, and so is a zone
other than GMT. Only case does not matter: a cache should not mind it (RFC 9111 §4.2). The name of the weekday has to
be one, but is not compared with the date. No clock: reading a two-digit year takes `now`.
"""

import re
import time
from calendar import timegm
from functools import lru_cache

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_NUMBER = {name.lower(): number for number, name in enumerate(_MONTHS, 1)}

_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY = "(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME = "(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9]|60)"
_FORMATS = tuple(
    re.compile(pattern, re.IGNORECASE | re.ASCII)
    for pattern in (
        # IMF-fixdate, the preferred one
        rf"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT",
        # rfc850-date, with two digits of year
        rf"{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<short_year>[0-9]{{2}}) {_TIME} GMT",
        # asctime-date
        rf"{_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})",
    )
)
_FAR_FUTURE_YEARS = 50  # RFC 9110 §5.6.7: further ahead than this, a two-digit year means the past


def parse_date(value: str, now: float) -> int | None:
    """Seconds since the epoch, or None. `now` decides the century of an rfc850-date, and nothing else."""
    for pattern in _FORMATS:
        match = pattern.fullmatch(value)
        if match is not None:
            return _timestamp(match.groupdict(), now)
    return None


def _timestamp(parts: dict[str, str], now: float) -> int | None:
    if "year" in parts:
        return _moment(int(parts["year"]), parts)
    # The latest year with these two digits whose date is not more than fifty years ahead.
    here = time.gmtime(now)
    year = here.tm_year + _FAR_FUTURE_YEARS
    year -= (year - int(parts["short_year"])) % 100
    moment = _moment(year, parts)
    limit = timegm((here.tm_year + _FAR_FUTURE_YEARS, *here[1:6]))
    if moment is not None and moment > limit:
        moment = _moment(year - 100, parts)
    return moment


def _moment(year: int, parts: dict[str, str]) -> int | None:
    month, day = _MONTH_NUMBER[parts["month"].lower()], int(parts["day"])
    if year == 0 or not 1 <= day <= _month_length(year, month):
        return None
    return timegm((year, month, day, int(parts["hour"]), int(parts["minute"]), int(parts["second"])))


def _month_length(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def format_date(moment: float) -> str:
    """IMF-fixdate of the second that `moment` lies in; texts of recent seconds are kept."""
    return _format(int(moment))


@lru_cache(maxsize=128)
def _format(second: int) -> str:
    year, month, day, hour, minute, sec, weekday, _, _ = time.gmtime(second)
    return f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year:04} {hour:02}:{minute:02}:{sec:02} GMT"
