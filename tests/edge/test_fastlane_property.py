"""The fast lane answers as the ordinary path does: the same octets, log lines and counts, for any request."""

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.edge.lanes import KIB, MAX_OBJECT, Bench, Origin, Told, assert_same, keep_bodies_on_disk, start, stop

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
LATER = "Sun, 06 Nov 1994 08:49:38 GMT"


@dataclass(repr=False, eq=False)
class Bed:
    """The loop that all examples run in, and the edges by kind."""

    runner: asyncio.Runner
    edges: dict[str, Bench]

    def run(self, work: Any) -> Any:
        return self.runner.run(work)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    folder = tmp_path_factory.mktemp("lane")
    kinds: dict[str, dict[str, object]] = {
        "plain": {},
        "trusting": {"forwarding": {"trusted_proxies": ["127.0.0.0/8"]}, "log": {"format": "combined"}},
        "disk": {"disk": {"path": str(folder / "tier"), "size": "256MiB"}},
        "strict": {"limits": {"request_line": 1024, "field_line": 1024, "head": 2048, "fields": 8}},
    }
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        edges = {kind: runner.run(start(Path(folder, kind), **given)) for kind, given in kinds.items()}
        keep_bodies_on_disk(edges["disk"])
        yield Bed(runner, edges)
        for bench in edges.values():
            runner.run(stop(bench))


# --- what is stored ---

NO_STORE_LINES = [
    *("Surrogate-Key: a b", "Surrogate-Control: max-age=60", "Content-Language: de", "Content-Encoding: gzip"),
    *("Content-MD5: x", "Content-Digest: x", "Accept-Ranges: bytes", "Age: 7", "Cache-Status: up; hit", "X-Empty:"),
    *("X-High: caf\xe9 \xff", f"Date: {DATE}", f"X-Long: {'l' * 9000}", "Set-Cookie: a=b", "Content-Location: /other"),
    *("Connection: X-Hop", "X-Hop: 1", "Warning: 110 - x", "CDN-Cache-Control: max-age=50", "content-type: a/b"),
    *("X-Tab: a\tb", 'Alt-Svc: h3=":443"', "Trailer: X-T", "Server: s", f"Expires: {DATE}", "Upgrade: h2c"),
]
CONTROLS = [
    *("max-age=60", "max-age=60", "max-age=60", "max-age=60, must-revalidate", "s-maxage=60", "max-age=99999999999"),
    *("max-age=0", "no-cache, max-age=60", "no-store", "private", "max-age=0, stale-if-error=60"),
    *('max-age=60, no-cache="etag"', 'max-age=60, private="last-modified, date"', "public", "max-age=60, immutable"),
    'max-age=60, no-cache="content-length"',
]
STATUSES = [
    *("200 OK", "200 OK", "200 OK", "200 ", "200 a phrase of its own, caf\xe9", "203 Non-Authoritative Information"),
    *("204 No Content", "301 Moved Permanently", "404 Not Found", "410 Gone", "206 Partial Content", "299 x", "500 x"),
    *("205 Reset Content", "600 x", "999 x"),
]
ETAGS = [[], ['"v1"'], ['W/"v1"'], ['"v1"', '"v2"'], ["v1"], ['""'], ['"a, b"'], ['"\xe9"'], ['w/"v1"'], ['"a\\"']]
MODIFIED = [[], [DATE], ["yesterday"], [DATE, LATER], ["Sunday, 06-Nov-94 08:49:37 GMT"]]
VARY = [
    [],
    [],
    [],
    ["Accept-Encoding"],
    ["Accept-Language"],
    ["Accept-Encoding, X-Thing"],
    ["X-Thing", "Cookie"],
    ["*"],
]
SIZES = [0, 1, 5, 1000, 32 * KIB - 1, 32 * KIB, 32 * KIB + 1, 70_000, 300_000, 1024 * KIB - 600, 1024 * KIB + 1]


@dataclass(frozen=True)
class Stored:
    """What the origin answers."""

    status: str = "200 OK"
    control: str = "max-age=60"
    etags: tuple[str, ...] = ()
    modified: tuple[str, ...] = ()
    vary: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    size: int = 5
    chunked: bool = False

    def answer(self) -> Origin:
        status = int(self.status[:3])
        body = b"" if status in (204, 205) else bytes(i * 7 % 251 for i in range(251)) * (self.size // 251 + 1)
        body = body[: self.size] if body else b""
        lines = [f"HTTP/1.1 {self.status}", f"Cache-Control: {self.control}", *self.more]
        lines += [f"ETag: {tag}" for tag in self.etags] + [f"Last-Modified: {date}" for date in self.modified]
        lines += [f"Vary: {names}" for names in self.vary]
        if status == 206:
            lines.append(f"Content-Range: bytes 0-{max(0, len(body) - 1)}/{len(body) + 10}")
        head = "".join(f"{line}\r\n" for line in lines).encode("latin-1")
        if status == 204:
            whole = head + b"\r\n"
        elif self.chunked:
            chunks = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            whole = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        else:
            whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        same = head.replace(f"HTTP/1.1 {self.status}".encode("latin-1"), b"HTTP/1.1 304 Not Modified", 1) + b"\r\n"

        def answer(asked: bytes) -> bytes:
            known = re.search(rb"\r\n(?:if-none-match|if-modified-since): ([^\r]*)", asked, re.IGNORECASE)
            mine = [text.encode("latin-1") for text in (*self.etags, *self.modified)]
            return same if known is not None and known[1] in mine else whole

        return answer


def several(lines: list[str], most: int) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(lines), max_size=most).map(tuple)


STORED = st.builds(
    Stored,
    status=st.sampled_from(STATUSES),
    control=st.sampled_from(CONTROLS),
    etags=st.sampled_from(ETAGS).map(tuple),
    modified=st.sampled_from(MODIFIED).map(tuple),
    vary=st.sampled_from(VARY).map(tuple),
    more=several(NO_STORE_LINES, 5),
    size=st.sampled_from(SIZES),
    chunked=st.booleans(),
)

# --- what is asked ---

TARGETS = [
    *(
        "",
        "",
        "",
        "?",
        "?a=1",
        "?b=2&a=1",
        "?q=%20&x=%C3%A9",
        "?token=secret&a=1",
        "?%7e",
        "?a=%2f",
        "?a?b",
        "#f",
        ";x",
    ),
    *(
        "?a=[1]",
        "?{}",
        "?\xe9",
        "?%",
        "?%zz",
        "?" + "l" * 1990,
        "?" + "l" * 2100,
        "?" + "m" * 900,
        "?%41",
        "?a=1#",
        "?'",
    ),
]
HOSTS = [
    *("a.example", "a.example", "A.example", "a.example.", "a.example:80", "a.example:8080", "a.example:0", "a_b"),
    *("[::1]", "[::1]:8080", "a%2eb", "127.0.0.1", "", "a.example:", "a.example:080", "a.example:99999", "a b", "\xe9"),
    *("x" * 255, "x" * 256, "a,b", "a.example/", "user@a.example", "-", "!$&'()*+,;="),
]
LINES = [
    *("Accept-Encoding: gzip", "Accept-Encoding: gzip, br;q=0.5", "Accept-Encoding: br ; q=0.5 , GZIP", "X-Thing: 1"),
    *("Accept-Encoding: identity", "Accept-Encoding:", "Accept-Language: de", "Accept-Language: de, en;q=0.5"),
    *("Accept-Language: *", "Cookie: a=b", "Cookie: c=d; e=\xe9", "X-Thing: 2,3", "X-Thing: 2 , 3", "X-Thing:\xff"),
    *(
        'If-None-Match: "v1"',
        'If-None-Match: W/"v1"',
        "If-None-Match: *",
        'If-None-Match: "v0", "v1"',
        "If-None-Match: v1",
    ),
    *(
        'If-None-Match: "v0"',
        'If-None-Match: "v0","v1"',
        'If-None-Match: "v0" ,"v1"',
        "If-None-Match:",
        'If-None-Match: ""',
    ),
    *(
        'If-None-Match: "a, b"',
        'If-None-Match: "v1",',
        'If-None-Match: , "v1"',
        'If-None-Match: "a\\"',
        'If-None-Match: "v1',
    ),
    *(
        f"If-Modified-Since: {DATE}",
        f"If-Modified-Since: {LATER}",
        "If-Modified-Since: yesterday",
        "If-Modified-Since:",
    ),
    *("If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT", 'If-Match: "v1"', f"If-Unmodified-Since: {DATE}"),
    *(
        "Range: bytes=0-1",
        "Range: bytes=0-1,3-4",
        'If-Range: "v1"',
        "Cache-Control: no-cache",
        "Cache-Control: max-age=0",
    ),
    *("Cache-Control:", "Cache-Control: only-if-cached", "Pragma: no-cache", "Pragma: x", "Authorization: Basic x"),
    *(
        "Connection: keep-alive",
        "Connection: Keep-Alive",
        "Connection: close",
        "Connection: keep-alive, x",
        "Connection:",
    ),
    *("Connection: upgrade", "Upgrade: websocket", "Expect: 100-continue", "Max-Forwards: 0", "TE: trailers", "TE:"),
    *("Content-Length: 0", "Content-Length: 00", "Content-Length: x", "Transfer-Encoding: chunked", "Trailer: x"),
    *("User-Agent: curl/8", 'User-Agent: a "quoted" \\ \xe9\tagent', "User-Agent:", "Referer: http://a/?token=x&y=1"),
    *("Referer: http://b.example/", "Referer: \xff?key=1", "Via: 1.1 x", "Via: 1.1 {me}", "Via: x{me}y", "Via:"),
    *(
        "X-Forwarded-For: 192.0.2.1",
        "X-Forwarded-For: 192.0.2.1, 127.0.0.1",
        "X-Forwarded-For: ::1",
        "X-Forwarded-For:",
    ),
    *("X-Forwarded-For: unknown", "X-Forwarded-For: 2001:db8::1", "Forwarded: for=x", "X-Forwarded-Proto: https"),
    *("Host: other.example", "Host: a.example", f"X-Pad: {'p' * 300}", f"X-Pad: {'p' * 17000}", f"X-Pad: {'p' * 57}"),
    *(f"Accept-Encoding: {'e' * 3000}", "Surrogate-Capability: x", "Keep-Alive: timeout=5", "Proxy-Connection: close"),
    *(
        "X-Tab:\ta\t",
        "x",
        ": x",
        "X Y: z",
        "X-Bad : z",
        " X-Fold: z",
        "X-Nul: \0",
        "X-Del: \x7f",
        "X-Cr: a\rb",
        "X@: 1",
    ),
]


@dataclass(frozen=True)
class Asked:
    """A request to be put together: `{path}` is the object's."""

    method: str = "GET"
    target: str = ""
    version: str = "HTTP/1.1"
    host: str = "a.example"
    lines: tuple[str, ...] = ()
    end: str = "\r\n"
    white: str = " "
    case: Callable[[str], str] = str

    def data(self, path: str, me: str) -> bytes:
        lines = [f"Host:{self.white}{self.host}", *self.lines]
        named = [
            (name, colon, rest.replace("{me}", me)) for name, colon, rest in (line.partition(":") for line in lines)
        ]
        text = "".join(f"{self.case(name)}{colon}{rest}{self.end}" for name, colon, rest in named)
        first = f"{self.method}{self.white}{path}{self.target} {self.version}{self.end}"
        return (first + text + self.end).encode("latin-1")


CANONICAL = st.builds(
    Asked,
    method=st.sampled_from(["GET", "GET", "HEAD"]),
    target=st.sampled_from(["", "?a=1", "?q=%20&x=%C3%A9", "?"]),
    host=st.sampled_from(["a.example", "a.example:8080", "127.0.0.1", "b.example."]),
    lines=several([line for line in LINES[:24] if "*" not in line and "v1" not in line], 4),
    case=st.sampled_from([str, str.lower, str.upper]),
)
ANYTHING = st.builds(
    Asked,
    method=st.sampled_from(["GET", "GET", "GET", "HEAD", "get", "OPTIONS", "GET ", "\r\nGET"]),
    target=st.sampled_from(TARGETS),
    version=st.sampled_from(
        ["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "http/1.1", "HTTP/1.1 ", "HTTP/2.0"]
    ),
    host=st.sampled_from(HOSTS),
    lines=several(LINES, 6),
    end=st.sampled_from(["\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r"]),
    white=st.sampled_from([" ", " ", " ", "  ", "\t", ""]),
    case=st.sampled_from([str, str.lower, str.upper]),
)
SLIGHTLY_ODD = st.builds(
    Asked,
    method=st.sampled_from(["GET", "HEAD"]),
    target=st.sampled_from(TARGETS[:12]),
    host=st.sampled_from(HOSTS[:8]),
    lines=several(LINES, 3),
)

_number = iter(range(10**9))


async def _compare(bench: Bench, stored: Stored, data: Callable[[str], bytes], pieces: int = 1) -> tuple[Told, int]:
    path = f"/o{next(_number)}"
    bench.origin[path.encode()] = stored.answer()
    ordinary, fast, served = await bench.both(data(path), pieces=pieces)
    assert_same(ordinary, fast)
    return ordinary, served


def _me(bench: Bench) -> str:
    return bench.edge.pipeline._hop.received_by


RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@RELAXED
@given(
    STORED,
    st.lists(ANYTHING | SLIGHTLY_ODD, min_size=1, max_size=3),
    st.sampled_from(["plain", "trusting", "strict", "disk"]),
)
def test_any_request(bed: Bed, stored: Stored, asked: list[Asked], kind: str) -> None:
    bench = bed.edges[kind]
    for each in asked:
        bed.run(_compare(bench, stored, lambda path, each=each: each.data(path, _me(bench))))  # type: ignore[misc]


@RELAXED
@example(Stored(size=MAX_OBJECT + 1), Asked("GET", "", "a.example", ()), "disk")
@example(Stored(size=MAX_OBJECT - 600), Asked("GET", "", "a.example", ()), "disk")
@example(Stored(size=MAX_OBJECT - 600, more=(f"X-Long: {'l' * 9000}",)), Asked("GET", "", "a.example", ()), "disk")
@given(STORED, CANONICAL, st.sampled_from(["plain", "disk"]))
def test_canonical_requests_are_the_lanes(bed: Bed, stored: Stored, asked: Asked, kind: str) -> None:
    """Where the ordinary path says that it is a fresh hit with a body of known length, the lane answers."""
    bench = bed.edges[kind]
    told, served = bed.run(_compare(bench, stored, lambda path: asked.data(path, "")))
    head = told.answer.partition(b"\r\n\r\n")[0]
    fresh = b"; hit; ttl=" in head.rpartition(b"Cache-Status: ")[2] and b"detail" not in head
    status = int(head[9:12])
    conditional = any(line.startswith("If-") for line in asked.lines)
    repeated = len({line.partition(":")[0] for line in asked.lines}) < len(asked.lines)
    by_language = any("Language" in names for names in stored.vary) and any("Language" in line for line in asked.lines)
    in_slices = stored.size + sum(map(len, stored.more)) > MAX_OBJECT - 500  # what lies beside the body counts too
    judged = conditional or repeated or by_language or in_slices
    if fresh and status < 600 and status not in (204, 205, 206) and not judged:
        assert served == 1, "the lane left it to the ordinary path"
    if not fresh:
        assert served == 0


@RELAXED
@given(SLIGHTLY_ODD, st.data())
def test_a_request_with_an_octet_changed(bed: Bed, asked: Asked, data: st.DataObject) -> None:
    bench = bed.edges["plain"]
    text = asked.data("/o", "")
    at = data.draw(st.integers(0, len(text) - 1))
    change = data.draw(st.sampled_from(["put", "drop", "twice", "insert"]))
    octet = bytes([data.draw(st.sampled_from([*b'\0\t\n\r "%*,/:;?#\\\x7f\x80\xff', *b"aZ0"]))])
    changed = {
        "put": text[:at] + octet + text[at + 1 :],
        "drop": text[:at] + text[at + 1 :],
        "twice": text[: at + 1] + text[at:],
        "insert": text[:at] + octet + text[at:],
    }[change]
    bench.origin[b"/o"] = Stored(etags=('"v1"',), modified=(DATE,)).answer()

    async def work() -> None:
        ordinary, fast, _ = await bench.both(changed)
        assert_same(ordinary, fast)

    bed.run(work())


@RELAXED
@example(Asked("GET", "", "a.example", ("Connection: close",)), Asked("GET", "", "a.example", ()), 2)
@given(SLIGHTLY_ODD, SLIGHTLY_ODD, st.integers(1, 9))
def test_two_requests_in_pieces(bed: Bed, first: Asked, second: Asked, pieces: int) -> None:
    """However the octets are cut, and whatever stands behind the first request, the answers are the same."""
    bench = bed.edges["plain"]
    if any("close" in line.lower() for line in first.lines):
        pieces = 1  # who says that sends nothing more (RFC 9112 §9.6); what comes all the same meets a reset
    stored = Stored(etags=('"v1"',), modified=(DATE,), size=1000)
    bed.run(_compare(bench, stored, lambda path: first.data(path, "") + second.data(path, ""), pieces))


TEXT = st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]) | st.just("\t"), max_size=30)
QUERY = st.text("abcXYZ019-._~!$&'()*+,;=:@/?", max_size=20)


@RELAXED
@example("a\tb", 'quo"te\\', "token=1", "plain")
@example("a b", "http://r.example/?key=\xe9#f", "", "trusting")
@given(TEXT, TEXT, QUERY, st.sampled_from(["plain", "trusting"]))
def test_log_lines(bed: Bed, agent: str, referer: str, query: str, kind: str) -> None:
    """ext/access_line.h writes what observe/accesslog.py writes, in both formats."""
    asked = Asked(target=f"?{query}", lines=(f"User-Agent: {agent}", f"Referer: {referer}", "X-Forwarded-For: ::1"))
    _, served = bed.run(_compare(bed.edges[kind], Stored(), lambda path: asked.data(path, "")))
    assert served == 1
