import asyncio

import dns.asyncquery

from edgecache.demo.directory import AMERICA, ASIA, EUROPE, NAME, Directory
from tests.geodns.world import addresses, make


async def test_each_continent_has_its_pop_and_europe_the_next_when_the_edge_is_gone() -> None:
    edge = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = edge.sockets[0].getsockname()[1]
    second = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.2", port)
    directory = Directory("127.0.0.1", "127.0.0.2", port)
    await directory.start()
    try:

        async def ask(client: str) -> list[str]:
            answer = await dns.asyncquery.udp(make(NAME, client=client), "127.0.0.1", 10, directory.port)
            return addresses(answer)

        assert [await ask(one) for one in (EUROPE, AMERICA, ASIA)] == [["127.0.0.1"], ["127.0.0.2"], ["127.0.0.1"]]
        edge.close()
        async with asyncio.timeout(20):
            while await ask(EUROPE) != ["127.0.0.2"]:  # noqa: ASYNC110 - another clock
                await asyncio.sleep(0.05)
    finally:
        edge.close()
        second.close()
        await directory.close()
