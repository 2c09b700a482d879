"""Cookies against RFC 9018's examples, and the rate limit against a plain account of time."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache._native.dnsguard import DROP, PASS, SLIP, Cookies, Limiter
from edgecache._native.dnsranges import Ranges
from edgecache._native.hashing import siphash24

SECRET = bytes.fromhex("e5e973e5a6b2a43f48e7dc849e37bfcf")
CLIENT = bytes.fromhex("2464c4abcf10c957")
V4 = bytes([198, 51, 100, 100])
SECOND = 10**9


@pytest.mark.parametrize(
    ("secrets", "option", "address", "now", "reply", "proven"),
    [
        pytest.param(
            [SECRET], "2464c4abcf10c957", V4, 1559731985,
            "2464c4abcf10c957010000005cf79f111f8130c3eee29480", False, id="A.1 a new cookie",
        ),
        pytest.param(
            [SECRET], "2464c4abcf10c957010000005cf79f111f8130c3eee29480", V4, 1559734385,
            "2464c4abcf10c957010000005cf7a871d4a564a1442aca77", True, id="A.2 good, but old: renewed",
        ),
        pytest.param(
            [SECRET], "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5", bytes([203, 0, 113, 203]), 1559734700,
            "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e", False, id="A.3 too old; renewed with zeros",
        ),
        pytest.param(
            [SECRET], "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5", bytes([203, 0, 113, 203]), 1559728000,
            "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5", True, id="A.3 in time: reserved octets may be set",
        ),
        pytest.param(
            [bytes.fromhex("445536bcd2513298075a5d379663c962"), bytes.fromhex("dd3bdf9344b678b185a6f5cb60fca715")],
            "22681ab97d52c298010000005cf7c57926556bd0934c72f8",
            bytes.fromhex("20010db80220000159ded0f4876982b8"), 1559741961,
            "22681ab97d52c298010000005cf7c609a6bb79d16625507a", True, id="A.4 IPv6, a secret being changed",
        ),
    ],
)  # fmt: skip
def test_rfc_9018_appendix_a(
    secrets: list[bytes], option: str, address: bytes, now: int, reply: str, proven: bool
) -> None:
    made, is_proven = Cookies(secrets).reply(bytes.fromhex(option), address, now)
    assert (made.hex(), is_proven) == (reply, proven)


def cookie(stamp: int, secret: bytes = SECRET, address: bytes = V4) -> bytes:
    front = CLIENT + b"\1\0\0\0" + stamp.to_bytes(4, "big")
    return front + siphash24(secret, front + address).to_bytes(8, "little")


NOW = 1_700_000_000


@pytest.mark.parametrize(
    ("option", "proven", "kept"),
    [
        pytest.param(cookie(NOW), True, True, id="new"),
        pytest.param(cookie(NOW - 1799), True, True, id="half an hour old, nearly"),
        pytest.param(cookie(NOW - 1800), True, False, id="half an hour old"),
        pytest.param(cookie(NOW - 3600), True, False, id="an hour old"),
        pytest.param(cookie(NOW - 3601), False, False, id="too old"),
        pytest.param(cookie(NOW + 300), True, True, id="a clock ahead"),
        pytest.param(cookie(NOW + 301), False, False, id="from the future"),
        pytest.param(cookie(NOW, bytes(16)), False, False, id="another secret"),
        pytest.param(cookie(NOW, address=b"\1\2\3\4"), False, False, id="another address"),
        pytest.param(CLIENT, False, False, id="the client's only"),
        pytest.param(cookie(NOW) + b"\0", False, False, id="an octet more"),
        pytest.param(cookie(NOW)[:-1], False, False, id="an octet less"),
        pytest.param(cookie(NOW)[:16], False, False, id="the shortest"),
        pytest.param(CLIENT + bytes(32), False, False, id="the longest"),
    ],
)
def test_what_proves_an_address(option: bytes, proven: bool, kept: bool) -> None:
    cookies = Cookies([SECRET])
    made, said = cookies.reply(option, V4, NOW)
    assert said is proven
    assert made == (option if kept else cookie(NOW))
    assert cookies.reply(made, V4, NOW)[1]


def test_a_secret_is_changed_without_refusing_anybody() -> None:
    new = bytes(range(16))
    made, proven = Cookies([new, SECRET]).reply(cookie(NOW), V4, NOW)
    assert proven
    assert made == cookie(NOW, new)


@pytest.mark.parametrize("secrets", [[], [bytes(15)], [bytes(16)] * 5], ids=["none", "short", "many"])
def test_refuses_secrets(secrets: list[bytes]) -> None:
    with pytest.raises(ValueError, match="secrets"):
        Cookies(secrets)


def test_so_many_and_no_more() -> None:
    limiter = Limiter(10, slip=3)
    assert [limiter.ask(V4, 1, SECOND) for _ in range(16)] == [PASS] * 10 + [DROP, DROP, SLIP, DROP, DROP, SLIP]
    assert limiter.ask(V4, 1, SECOND + SECOND // 10) == PASS
    assert limiter.ask(V4, 1, SECOND + SECOND // 10) == DROP


@pytest.mark.parametrize(
    ("address", "subject", "same"),
    [
        pytest.param(bytes([198, 51, 100, 7]), 1, True, id="the same /24"),
        pytest.param(bytes([198, 51, 101, 100]), 1, False, id="another /24"),
        pytest.param(V4, 2, False, id="another question"),
        pytest.param(bytes([198, 51, 100]) + bytes(13), 1, False, id="IPv6 with the same octets"),
    ],
)
def test_who_shares_an_account(address: bytes, subject: int, same: bool) -> None:
    limiter = Limiter(1, slip=0)
    assert limiter.ask(V4, 1, SECOND) == PASS
    assert limiter.ask(address, subject, SECOND) == (DROP if same else PASS)


@given(st.integers(1, 50), st.lists(st.integers(0, 2 * SECOND), max_size=300))
def test_never_more_than_the_rate(rate: int, steps: list[int]) -> None:
    """In any stretch of time: a burst and what fell due since."""
    limiter, now, passed = Limiter(rate), SECOND, []
    for step in steps:
        now += step // (4 * rate)
        if limiter.ask(V4, 1, now) == PASS:
            passed.append(now)
    for first, begin in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first <= rate + (passed[last] - begin) * rate / SECOND + 1


def test_no_limit() -> None:
    limiter = Limiter(0)
    assert {limiter.ask(V4, 1, SECOND) for _ in range(1000)} == {PASS}


def test_errors_have_a_rate_of_their_own() -> None:
    limiter = Limiter(3, 1, slip=0)
    assert [limiter.ask(V4, 1, SECOND) for _ in range(4)] == [PASS] * 3 + [DROP]
    assert [limiter.ask(V4, 2, SECOND, True) for _ in range(2)] == [PASS, DROP]


def test_a_window_averages() -> None:
    limiter = Limiter(3, window_s=4, slip=0)
    assert [limiter.ask(V4, 1, SECOND) for _ in range(13)] == [PASS] * 12 + [DROP]
    assert [limiter.ask(V4, 1, 2 * SECOND) for _ in range(4)] == [PASS] * 3 + [DROP]


def test_the_exempt_are_not_limited() -> None:
    exempt = Ranges(array("I", [0, 10 << 24, 11 << 24]), None, array("I", [0, 1, 0]))
    limiter = Limiter(1, slip=0, exempt_4=exempt)
    assert {limiter.ask(b"\x0a\1\2\3", 1, SECOND) for _ in range(9)} == {PASS}
    assert [limiter.ask(V4, 1, SECOND) for _ in range(2)] == [PASS, DROP]
    assert [limiter.ask(b"\x0a" + bytes(15), 1, SECOND) for _ in range(2)] == [PASS, DROP]


def test_strangers_do_not_clear_an_account() -> None:
    """Its line is kept while others with less to their account are about."""
    limiter = Limiter(100, slip=0, lines=2)
    for _ in range(100):
        limiter.ask(V4, 1, SECOND)
    for stranger in range(100):
        limiter.ask(bytes([10, 0, stranger, 1]), 1, SECOND)
    assert limiter.ask(V4, 1, SECOND) == DROP


@pytest.mark.parametrize(
    "arguments",
    [
        {"per_second": -1},
        {"per_second": 1, "lines": 3},
        {"per_second": 1, "window_s": 0},
        {"per_second": 1, "errors": -1},
    ],
    ids=str,
)
def test_refuses_limits(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"rate|lines|window"):
        Limiter(**arguments)  # type: ignore[arg-type]
