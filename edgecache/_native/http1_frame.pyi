"""The shared half of the decoders: import these names from `edgecache._native.http1`, where they are documented."""

from edgecache._native.http1 import MAX_EVENT as MAX_EVENT
from edgecache._native.http1 import End as End
from edgecache._native.http1 import FramingError as FramingError
from edgecache._native.http1 import Limits as Limits
