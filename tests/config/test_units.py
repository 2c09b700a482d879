import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.config import units
from edgecache.config.units import Address


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        pytest.param(65536, 65536, id="number"),
        pytest.param("65536", 65536, id="digits"),
        pytest.param("0", 0, id="zero"),
        pytest.param("512B", 512, id="octets"),
        pytest.param("1kB", 1000, id="decimal-k"),
        pytest.param("1KB", 1000, id="decimal-K"),
        pytest.param("1GB", 10**9, id="decimal-G"),
        pytest.param("256MiB", 256 << 20, id="binary-M"),
        pytest.param("1 GiB", 1 << 30, id="space"),
        pytest.param("1.5GiB", 3 << 29, id="fraction"),
        pytest.param("0.1GB", 10**8, id="decimal-fraction-is-exact"),
        pytest.param("2tib", 2 << 40, id="any-case"),
    ],
)
def test_sizes(text: object, octets: int) -> None:
    assert units.parse_size(text) == octets


@pytest.mark.parametrize(
    "text", ["", "MiB", "1M", "1G", "-1", "-1MiB", "1,5MB", "1MiB!", "1e6", "nan", 1.5, True, None, [], "9" * 30, "٣"]
)
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="a size such as"):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param(30, 30.0, id="number"),
        pytest.param(0.5, 0.5, id="float"),
        pytest.param("30", 30.0, id="digits"),
        pytest.param("500ms", 0.5, id="ms"),
        pytest.param("30s", 30.0, id="s"),
        pytest.param("2m", 120.0, id="m"),
        pytest.param("1h30m", 5400.0, id="compound"),
        pytest.param("1d", 86400.0, id="d"),
        pytest.param("2w", 1209600.0, id="w"),
        pytest.param("1.5h", 5400.0, id="fraction"),
        pytest.param("0s", 0.0, id="zero"),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert units.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "1y", "-1s", "1 day", "1s!", "forever", True, None, -1, float("inf"), float("nan"), "1e3"]
)
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="a duration such as"):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "address", "spelt", "loopback"),
    [
        pytest.param("0.0.0.0:80", Address("0.0.0.0", 80), "0.0.0.0:80", False, id="any-v4"),
        pytest.param("127.0.0.1:8080", Address("127.0.0.1", 8080), "127.0.0.1:8080", True, id="loopback-v4"),
        pytest.param("127.9.9.9:1", Address("127.9.9.9", 1), "127.9.9.9:1", True, id="loopback-net"),
        pytest.param("localhost:81", Address("127.0.0.1", 81), "127.0.0.1:81", True, id="localhost"),
        pytest.param("[::1]:8080", Address("::1", 8080), "[::1]:8080", True, id="loopback-v6"),
        pytest.param("[2001:db8::1]:443", Address("2001:db8::1", 443), "[2001:db8::1]:443", False, id="v6"),
        pytest.param("[fe80::1%eth0]:80", Address("fe80::1%eth0", 80), "[fe80::1%eth0]:80", False, id="scoped"),
        pytest.param(":80", Address("", 80), ":80", False, id="all"),
        pytest.param("*:80", Address("", 80), ":80", False, id="star"),
        pytest.param("127.0.0.1:0", Address("127.0.0.1", 0), "127.0.0.1:0", True, id="port-chosen"),
    ],
)
def test_addresses(text: str, address: Address, spelt: str, loopback: bool) -> None:
    assert units.parse_address(text) == address
    assert str(address) == spelt
    assert address.loopback is loopback
    assert units.parse_address(spelt) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "80",
        "127.0.0.1",
        "::1:80",
        "[::1]",
        "[127.0.0.1]:80",
        "example.com:80",
        "1.2.3.4:65536",
        "1.2.3.4:x",
        80,
        None,
        "1.2.3.4:-1",
        "256.0.0.1:80",
        "1.2.3.4:٣",
    ],
)
def test_what_is_no_address(text: object) -> None:
    with pytest.raises(ValueError, match="an address and port such as"):
        units.parse_address(text)


@given(st.integers(0, 1 << 45))
def test_a_size_is_read_back_from_how_it_is_shown(size: int) -> None:
    assert units.parse_size(units.format_size(size)) == size


@given(st.integers(0, 10**12))
def test_a_duration_is_read_back_from_how_it_is_shown(milliseconds: int) -> None:
    shown = units.format_duration(milliseconds / 1000)
    assert units.parse_duration(shown) == pytest.approx(milliseconds / 1000)


@given(st.text(max_size=30))
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    for parse in (units.parse_size, units.parse_duration, units.parse_address):
        try:
            parse(text)
        except ValueError as error:
            said = str(error)
        else:
            continue
        assert "such as" in said
