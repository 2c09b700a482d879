"""An aiohttp server that takes requests of any method: Varnish's users send BAN and PURGEKEYS.

aiohttp's compiled parser knows a list of methods and answers 400 to every other. The one in Python, of the same release
and as strict in framing, takes any token. It costs a coordinator some 20 microseconds a call.
"""

import asyncio
import logging
import socket
import ssl
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParserPy

FIELD_LINE_BYTES: Final = 64 * 1024
"""Clients of other products write whole lists of tags into a field."""
_BUFFER_BYTES: Final = 1 << 16


def _worth_a_line(record: logging.LogRecord) -> bool:
    """What clients do wrong they are told. Whoever reaches the port could fill the log with it."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


LOG: Final = logging.getLogger("edgecache.admin.http")
"""For aiohttp: `AppRunner(logger=LOG)`."""
LOG.addFilter(_worth_a_line)


async def listen(
    runner: web.AppRunner, listener: socket.socket, *, backlog: int, tls: ssl.SSLContext | None = None
) -> asyncio.Server:
    """Accepts for a runner that has been set up. The socket becomes the server's to close; where this fails, it is
    closed."""
    server = runner.server
    assert server is not None

    def protocol() -> asyncio.Protocol:
        made = server()
        options: dict[str, Any] = {}
        queued = getattr(made, "_max_msg_queue_size", None)
        if queued is not None:  # requests that were sent ahead wait within a bound, where this aiohttp knows one
            options["max_msg_queue_size"] = queued
        made._parser = HttpRequestParserPy(  # there is no other way to choose it
            made,
            asyncio.get_running_loop(),
            _BUFFER_BYTES,
            max_line_size=FIELD_LINE_BYTES,
            max_field_size=FIELD_LINE_BYTES,
            payload_exception=web.RequestPayloadError,
            **options,
        )
        return made

    try:
        return await asyncio.get_running_loop().create_server(protocol, sock=listener, backlog=backlog, ssl=tls)
    except BaseException:
        listener.close()
        raise
