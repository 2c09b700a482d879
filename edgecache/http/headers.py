"""Header fields as they came, with look-ups by lower-case name (RFC 9110 §5). Compiled: `_native/message.pyi`."""

from edgecache._native.message import Headers

__all__ = ["Headers"]
