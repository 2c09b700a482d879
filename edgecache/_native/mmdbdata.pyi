"""The data section of a MaxMind-format database ("MaxMind DB File Format Specification" 2.0), decoded value by value.

Nothing in the file is trusted: a value that leaves it, is nested too deeply, holds too many others, or is of no known
kind raises ValueError.
"""

from typing import Any, final

MOST_VALUES: int
"""In one record, what it points to included. Real ones have a few hundred."""
MOST_DEPTH: int

@final
class Records:
    """A data section in memory."""

    def __init__(self, data: bytes) -> None: ...
    def decode(self, offset: int) -> Any:
        """The value there: dict, list, str, bytes, int, float or bool. What records share by pointers is decoded once
        and is one object in all of them: nobody may change it."""
