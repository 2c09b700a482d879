"""The encoders: import them from `edgecache._native.http1`, where they are documented."""

from edgecache._native.http1 import encode_chunk as encode_chunk
from edgecache._native.http1 import encode_last_chunk as encode_last_chunk
from edgecache._native.http1 import encode_request_head as encode_request_head
from edgecache._native.http1 import encode_response_head as encode_response_head
