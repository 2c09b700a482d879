"""A body that arrives once and is read by many: order, bounds, back-pressure, spooling, cuts."""

import asyncio
import gc
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache.edge.buffer import PIECE, Budget, FillBuffer, FillReader
from edgecache.http.errors import OriginReset
from edgecache.http.headers import Headers


async def read_all(reader: FillReader) -> bytes:
    return b"".join([data async for data in pieces(reader)])


async def pieces(reader: FillReader):
    while data := await reader.read():
        yield data


@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=20),
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)), min_size=1, max_size=5),
    st.integers(0, 600),
)
@settings(max_examples=60, deadline=None)
def test_every_reader_gets_every_octet_in_order(chunks, plans, limit):
    """Readers that join at any time before the overflow, each reading now and then, whatever the limit."""

    async def story():
        budget = Budget(10**6)
        buffer = FillBuffer(limit=limit, length=None, budget=budget)
        reader = go = None
        readers: list[tuple[FillReader, bytearray, int]] = []
        readings = []
        for i, chunk in enumerate(chunks):
            for start, pause in plans:
                if start == i and not buffer.overflowed:
                    reader, got = buffer.reader(), bytearray()
                    readers.append((reader, got, pause))

                    async def go(reader=reader, got=got, pause=pause):
                        async for data in pieces(reader):
                            got += data
                            for _ in range(pause):
                                await asyncio.sleep(0)

                    readings.append(asyncio.ensure_future(go()))
            await buffer.append(chunk)
        if not buffer.overflowed:
            assert b"".join(buffer.chunks) == b"".join(chunks)
        buffer.finish(None)
        await asyncio.gather(*readings)
        for _, got, _ in readers:
            assert bytes(got) == b"".join(chunks)
        del buffer, reader, readers, readings, go
        gc.collect()
        assert budget.used == 0

    asyncio.run(story())


async def test_a_slow_reader_holds_up_nobody():
    buffer = FillBuffer(limit=1000, length=None)
    slow, fast = buffer.reader(), buffer.reader()
    reading = asyncio.ensure_future(read_all(fast))
    for i in range(100):
        await asyncio.wait_for(buffer.append(bytes([i]) * 500), 5)
    buffer.finish(None)
    assert await asyncio.wait_for(reading, 5) == b"".join(bytes([i]) * 500 for i in range(100))
    assert await read_all(slow) == b"".join(bytes([i]) * 500 for i in range(100))


async def test_memory_stays_bounded_when_spooled():
    buffer = FillBuffer(limit=1000, length=None)
    readers = [buffer.reader(), buffer.reader()]
    for _ in range(50):
        await buffer.append(b"x" * 500)
    assert buffer.overflowed
    assert sum(map(len, buffer.chunks)) == 0
    for reader in readers:
        reader.close()


async def test_a_lone_reader_slows_the_fill_down_and_memory_stays_bounded():
    buffer = FillBuffer(limit=1000, length=None)
    reader = buffer.reader()
    most = 0

    async def fill():
        for i in range(40):
            await buffer.append(bytes([i]) * 300)
        buffer.finish(None)

    filling = asyncio.ensure_future(fill())
    got = bytearray()
    while data := await reader.read():
        got += data
        most = max(most, sum(map(len, buffer.chunks)))
        assert not (len(got) < 4000 and buffer.done)
    await filling
    assert bytes(got) == b"".join(bytes([i]) * 300 for i in range(40))
    assert most <= 1000 + 2 * 300


async def test_the_fill_goes_on_when_the_lone_reader_leaves():
    buffer = FillBuffer(limit=100, length=None)
    reader = buffer.reader()
    filling = asyncio.ensure_future(buffer.append(b"x" * 300))
    await asyncio.sleep(0)
    assert not filling.done()
    reader.close()
    await asyncio.wait_for(filling, 5)
    assert buffer.abandoned


async def test_a_cut_reaches_every_reader_after_what_arrived():
    buffer = FillBuffer(limit=100, length=50)
    early = buffer.reader()
    await buffer.append(b"half")
    late = buffer.reader()
    buffer.fail(OriginReset("the origin closed the connection", code="reset"))
    for reader in (early, late):
        assert await reader.read() == b"half"
        with pytest.raises(OriginReset):
            await reader.read()


async def test_trailers_come_with_the_end():
    buffer = FillBuffer(limit=100, length=None)
    reader = buffer.reader()
    await buffer.append(b"body")
    buffer.finish(Headers([("Checksum", "1")]))
    assert await read_all(reader) == b"body"
    assert reader.trailers == Headers([("Checksum", "1")])


@pytest.mark.parametrize(
    ("parts", "want"),
    [([(0, 4)], b"0123"), ([(3, 4), (8, 2)], b"345689"), ([(9, 5)], b"9")],
    ids=["first", "two", "past-the-end"],
)
async def test_ranges_of_an_arriving_body(parts, want):
    buffer = FillBuffer(limit=100, length=10)
    reader = buffer.reader()

    async def take():
        got = b""
        for offset, size in parts:
            at = offset
            while at < offset + size:
                data = await reader.read_at(at, offset + size - at)
                if not data:
                    break
                got += data
                at += len(data)
        return got

    taking = asyncio.ensure_future(take())
    for digit in b"0123456789":
        await buffer.append(bytes([digit]))
        await asyncio.sleep(0)
    buffer.finish(None)
    assert await asyncio.wait_for(taking, 5) == want


async def test_the_spool_file_is_closed_when_the_last_reader_has_gone(monkeypatch):
    closed: list[int] = []
    close = os.close
    monkeypatch.setattr("edgecache.edge.buffer.os.close", lambda fd: (closed.append(fd), close(fd)))
    buffer = FillBuffer(limit=10, length=None)
    a, b = buffer.reader(), buffer.reader()
    await buffer.append(b"x" * 20)
    a.close()
    assert not closed
    buffer.finish(None)
    assert await read_all(b) == b"x" * 20
    assert len(closed) == 1


async def test_the_spool_file_outlives_a_thread_that_nobody_waits_for(monkeypatch):
    """What is written late, after everybody has gone, may not go into another file that got its number."""
    held, go_on = threading.Event(), threading.Event()
    pwrite = os.pwrite

    def slow(fd: int, data: bytes, place: int) -> int:
        held.set()
        assert go_on.wait(20)
        return pwrite(fd, data, place)

    monkeypatch.setattr("edgecache.edge.buffer.os.pwrite", slow)
    buffer = FillBuffer(limit=10, length=None)
    readers = [buffer.reader(), buffer.reader()]
    filling = asyncio.ensure_future(buffer.append(b"x" * 20))
    try:
        assert await asyncio.to_thread(held.wait, 20)
        spool = buffer._spool.fd
        inode = os.fstat(spool).st_ino
        filling.cancel()
        await asyncio.wait([filling])
        del filling  # its traceback has it, too
        buffer.fail(OriginReset("cut"))
        for reader in readers:
            reader.close()
        assert buffer._spool is None
        assert os.fstat(spool).st_ino == inode
    finally:
        go_on.set()
    async with asyncio.timeout(20):
        while open_as(spool) == inode:  # noqa: ASYNC110 - the thread's end wakes nobody
            await asyncio.sleep(0.001)


def open_as(fd: int) -> int | None:
    """The inode of the file that a descriptor is of."""
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return None


async def test_a_spent_budget_stops_the_gathering():
    """Many fills together: what the budget does not cover goes to its reader at the reader's pace, and is not kept."""
    budget = Budget(1000)
    first = FillBuffer(limit=5000, length=None, budget=budget)
    await first.append(b"x" * 900)
    second = FillBuffer(limit=10**6, length=None, budget=budget)
    reader = second.reader()
    filling = asyncio.ensure_future(_fill(second, [b"y" * 100_000] * 20))
    got = 0
    while data := await reader.read():
        got += len(data)
        assert budget.used <= 900 + 3 * 256 * 1024
    await filling
    assert got == 20 * 100_000
    assert second.overflowed
    assert not first.overflowed
    del first, second, reader, filling
    gc.collect()
    assert budget.used == 0


async def _fill(buffer: FillBuffer, pieces_: list[bytes]) -> None:
    for piece in pieces_:
        await buffer.append(piece)
    buffer.finish(None)


async def test_the_spool_file_stays_within_its_ring():
    """More passes through than the file may hold; a reader within the limit loses nothing."""
    buffer = FillBuffer(limit=10, length=None, spool_limit=300_000)
    readers = [buffer.reader(), buffer.reader()]
    want = [bytes([i]) * 100_000 for i in range(30)]
    reading = [asyncio.ensure_future(read_all(reader)) for reader in readers]
    await _fill(buffer, want)
    assert buffer._spool is not None
    assert os.fstat(buffer._spool.fd).st_size <= 300_000 + 2 * PIECE
    assert [await task for task in reading] == [b"".join(want)] * 2
