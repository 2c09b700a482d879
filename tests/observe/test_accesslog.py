import asyncio
import fcntl
import json
import os
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache._native.accessline import json_line
from edgecache.observe import accesslog
from edgecache.observe.accesslog import AccessLog, Redactor, combined_formatter, json_formatter, json_in_words
from edgecache.observe.events import ExchangeFinished
from edgecache.policy.verdicts import Reason
from tests.observe.sample import sample

REDACT = Redactor(["token", "api_key", "x-amz-*"])
TO_JSON = json_formatter(REDACT)
TO_COMBINED = combined_formatter(REDACT)


def test_json() -> None:
    assert json.loads(TO_JSON(sample(origin_s=0.1, request_id="r-1", aborted=True))) == {
        "time": "2023-11-14T22:13:20.250Z",
        "site": "shop",
        "client": "192.0.2.7",
        "method": "GET",
        "scheme": "http",
        "host": "shop.example",
        "target": "/list?page=2",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes_in": 0,
        "bytes_out": 1024,
        "outcome": "hit",
        "reason": "fresh",
        "duration": 0.0005,
        "ttfb": 0.0004,
        "origin": 0.1,
        "cache_status": "edgecache; hit",
        "user_agent": "curl/8",
        "referer": "",
        "request_id": "r-1",
        "aborted": True,
    }
    assert {"ttfb", "origin", "request_id", "aborted"}.isdisjoint(json.loads(TO_JSON(sample(ttfb_s=None))))


def test_combined() -> None:
    line = TO_COMBINED(sample(referer="http://a/?x=1"))
    assert line == (
        '192.0.2.7 - - [14/Nov/2023:22:13:20 +0000] "GET /list?page=2 HTTP/1.1" 200 1024 "http://a/?x=1" "curl/8"\n'
    )
    assert TO_COMBINED(sample(user_agent="")).endswith(' "-" "-"\n')


def test_the_clock_goes_on() -> None:
    assert '"time":"2023-11-14T22:13:21.000Z"' in TO_JSON(sample(time=1_700_000_001.0))
    assert '"time":"2023-11-14T22:13:20.999Z"' in TO_JSON(sample(time=1_700_000_000.9999))


@pytest.mark.parametrize(
    ("url", "logged"),
    [
        ("/a", "/a"),
        ("/a?", "/a?"),
        ("/a?b=c", "/a?b=c"),
        ("/a?token=s3cret", "/a?token=REDACTED"),
        ("/a?x=1&token=s3cret&y=2", "/a?x=1&token=REDACTED&y=2"),
        ("/a?TOKEN=s3cret", "/a?TOKEN=REDACTED"),
        ("/a?%74oken=s3cret", "/a?%74oken=REDACTED"),
        ("/a?token=s3cret&token=s3cret", "/a?token=REDACTED&token=REDACTED"),
        ("/a?token=s3cret=x", "/a?token=REDACTED"),
        ("/a?token", "/a?token"),
        ("/a?mytoken=x", "/a?mytoken=x"),
        ("/a?X-Amz-Signature=s3cret", "/a?X-Amz-Signature=REDACTED"),
        ("http://u.example/?api_key=s3cret#frag", "http://u.example/?api_key=REDACTED#frag"),
        ("/a?token=s3cret?token=s3cret", "/a?token=REDACTED"),
        ("/a?b?token=s3cret", "/a?b?token=s3cret"),
    ],
)
def test_redaction(url: str, logged: str) -> None:
    assert REDACT(url) == logged


def test_secrets_are_never_logged() -> None:
    event = sample(target="/?token=s3cret", referer="http://a/?api_key=s3cret")
    assert "s3cret" not in TO_JSON(event)
    assert "s3cret" not in TO_COMBINED(event)
    names = {field.name for field in fields(ExchangeFinished)}
    assert names.isdisjoint({"authorization", "cookie", "headers", "request"})


STRANGER = st.text(st.characters(max_codepoint=255) | st.sampled_from('\r\n"\\\x1b\x9b\u2028 '), max_size=40)


TIMES_S = st.integers(0, 10**10).map(lambda microseconds: microseconds / 1e6)


@given(
    event=st.builds(
        sample,
        time=st.floats(0, 4e9),
        target=STRANGER,
        user_agent=st.text(max_size=20) | STRANGER,
        host=STRANGER | st.just("x" * 9000),
        reason=st.sampled_from([Reason.FRESH, "origin-timeout"]),
        duration_s=TIMES_S,
        ttfb_s=st.none() | TIMES_S,
        origin_s=st.none() | TIMES_S,
        request_id=st.just("") | STRANGER,
        bytes_in=st.integers(0, 2**40),
        aborted=st.booleans(),
    )
)
def test_the_compiled_line_is_the_one_in_words(event: ExchangeFinished) -> None:
    assert TO_JSON(event) == json_in_words(REDACT)(event)


def test_what_is_beyond_latin_1_is_written_in_words() -> None:
    assert json_line(sample(user_agent="\u2028"), "", "", "") is None
    assert json.loads(TO_JSON(sample(user_agent="\u2028")))["user_agent"] == "\u2028"


@given(STRANGER, STRANGER, STRANGER, STRANGER)
def test_what_a_stranger_sends_cannot_forge_a_line_or_a_field(target: str, agent: str, referer: str, host: str) -> None:
    event = sample(target=target, user_agent=agent, referer=referer, host=host, method=agent or "GET")
    line = TO_JSON(event)
    assert line.isascii()
    assert line.count("\n") == 1
    read = json.loads(line)
    assert (read["user_agent"], read["host"], read["referer"]) == (agent, host, REDACT(referer))
    assert len(read) == len(json.loads(TO_JSON(sample())))
    line = TO_COMBINED(event)
    assert line.isascii()
    assert line[:-1].isprintable()
    assert re.fullmatch(r'\S+ - - \[[^\]]+\] "[^"]*" 200 1024 "[^"]*" "[^"]*"\n', line)


async def opened(path: Path | str, form: Callable[[ExchangeFinished], str] = TO_JSON, **options: object) -> AccessLog:
    log = AccessLog(form, str(path), **{"flush_interval_s": 0.01, **options})  # type: ignore[arg-type]
    log.start()
    return log


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is awaited is a file, and files wake nobody
            await asyncio.sleep(0.005)


async def test_lines_are_written_in_order_and_all_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = await opened(path)
    for n in range(5000):
        log.add(sample(bytes_out=n))
    await log.close()
    assert [json.loads(line)["bytes_out"] for line in path.read_text().splitlines()] == list(range(5000))
    assert log.dropped == 0
    assert path.stat().st_mode & 0o777 == 0o640


async def test_lines_appear_by_themselves(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = await opened(path)
    log.add(sample())
    await until(lambda: path.stat().st_size > 0)
    await log.close()


async def test_a_moved_file_is_replaced(tmp_path: Path) -> None:
    path, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    log = await opened(path)
    log.add(sample(reason="before"))
    path.rename(moved)
    log.reopen()
    log.add(sample(reason="after"))
    await log.close()
    assert [json.loads(line)["reason"] for line in moved.read_text().splitlines()] == ["before"]
    assert [json.loads(line)["reason"] for line in path.read_text().splitlines()] == ["after"]


async def test_under_overload_lines_are_dropped_and_counted_and_nobody_waits(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    told: list[int] = []
    log = await opened(fifo, buffer_lines=1000, on_drop=told.append)
    for _ in range(20_000):
        log.add(sample())
    await asyncio.sleep(0)
    assert log.dropped > 0
    os.set_blocking(reader, True)

    def drain() -> list[bytes]:
        chunks = []
        while data := os.read(reader, 1 << 20):
            chunks.append(data)
        return b"".join(chunks).splitlines()

    lines, _ = await asyncio.gather(asyncio.to_thread(drain), log.close())
    os.close(reader)
    assert sum(told) == log.dropped
    assert len(lines) == 20_000 - log.dropped
    assert all(json.loads(line)["site"] == "shop" for line in lines)


async def test_a_failing_disk_costs_lines_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    log = await opened("/dev/full")
    for batch in range(1, 4):
        log.add(sample())
        log.add(sample())
        await until(lambda batch=batch: log.dropped == 2 * batch)  # type: ignore[misc]
    await log.close()
    (record,) = [r for r in caplog.records if r.name == "edgecache.accesslog"]
    assert "No space left" in record.getMessage()
    assert record.remedy  # type: ignore[attr-defined]


async def test_a_path_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await opened(tmp_path / "nowhere" / "access.log")


async def test_a_pipe_nobody_reads_does_not_hold_up_the_end(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    log = await opened(fifo)
    for _ in range(2000):
        log.add(sample())
    async with asyncio.timeout(5):
        await log.close(timeout_s=0.1)
    os.set_blocking(reader, False)
    os.close(reader)


async def test_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    log = await opened("-", TO_COMBINED)
    log.add(sample())
    await log.close()
    assert capfd.readouterr().out == TO_COMBINED(sample())


@pytest.mark.parametrize("lowest", [0, 1500], ids=["few descriptors", "many descriptors"])
async def test_standard_output_that_is_a_non_blocking_pipe(lowest: int) -> None:
    """Reopened by an edge with many connections its descriptor has a number that select(2) refuses."""
    read_end, low_end = os.pipe()
    write_end = fcntl.fcntl(low_end, fcntl.F_DUPFD_CLOEXEC, lowest)
    os.close(low_end)
    os.set_blocking(write_end, False)
    log = await opened("-")
    log._writer._fd, old = write_end, log._writer._fd
    os.close(old)
    for n in range(2000):
        log.add(sample(bytes_out=n))

    def drain() -> bytes:
        chunks = []
        while data := os.read(read_end, 1 << 20):
            chunks.append(data)
        return b"".join(chunks)

    data, _ = await asyncio.gather(asyncio.to_thread(drain), log.close())
    os.close(read_end)
    assert [json.loads(line)["bytes_out"] for line in data.splitlines()] == list(range(2000))


def test_a_line_is_cheap() -> None:
    """The bound is loose: a line costs some microseconds, and this only fails when it becomes a hundred."""
    import timeit

    assert min(timeit.repeat(lambda: TO_JSON(sample_event), number=500, repeat=3)) / 500 < 100e-6


sample_event = sample()
assert accesslog.REDACTED == "REDACTED"


async def test_a_file_that_cannot_be_reopened_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = await opened(folder / "access.log")
    folder.rename(tmp_path / "moved")
    log.reopen()
    log.add(sample(reason="after"))
    await log.close()
    assert "after" in (tmp_path / "moved" / "access.log").read_text()
    assert "No such file" in caplog.text


async def test_several_writers_of_one_pipe_take_turns(tmp_path) -> None:
    """Batches longer than what a pipe takes in one step."""
    lock = os.memfd_create("lock")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    logs = [AccessLog(lambda event: f"{event.host}\n", str(pipe), flush_interval_s=60, lock=lock) for _ in range(3)]
    os.set_blocking(reader, True)
    for log in logs:
        log.start()
    for index, log in enumerate(logs):
        for _ in range(500):
            log.add(sample(host=str(index) * 700))
        log.flush()
    closing = asyncio.gather(*(log.close() for log in logs))
    text = b""
    while data := await asyncio.to_thread(os.read, reader, 65536):
        text += data
    await closing
    os.close(reader)
    os.close(lock)
    lines = text.decode().splitlines()
    assert len(lines) == 1500
    assert all(line in {str(index) * 700 for index in range(3)} for line in lines)
