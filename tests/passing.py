"""The smallest proxy there is: listener, forwarding rules, origin client and tunnels, with no cache between.

Run as a program it is a process of its own: `python -m tests.passing ORIGIN_URL` prints its port and serves.
"""

import asyncio
import sys

import uvloop

from edgecache.edge.exchange import Exchange, Handler
from edgecache.edge.forwarding import Hop, request_to_origin, response_to_client
from edgecache.edge.listener import Listener
from edgecache.edge.tunnel import tunnel
from edgecache.http.errors import HttpError
from edgecache.origin.api import Origin
from edgecache.origin.client import HttpOrigin

HOP = Hop("test")


def passing(origin: Origin) -> Handler:
    async def handler(exchange: Exchange) -> None:
        request = request_to_origin(exchange.request, HOP)
        response = await origin.send(
            request, exchange.body, on_interim=lambda interim: exchange.interim(response_to_client(interim, HOP))
        )
        if response.upgraded is not None:
            await tunnel(exchange.switch(response.head), response.upgraded)
            return
        body = response.body
        try:
            exchange.start(response_to_client(response.head, HOP), body.length)
            while data := await body.read():
                await exchange.write(data)
            exchange.finish(body.trailers)
        except HttpError:
            exchange.abort()
        finally:
            body.close()

    return handler


async def _serve(url: str) -> None:
    listener = Listener(passing(HttpOrigin(url)))
    await listener.start(("127.0.0.1", 0))
    print(listener.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
