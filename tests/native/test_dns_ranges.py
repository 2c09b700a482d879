"""Compiled ranges against those of the geodns package."""

from array import array

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgecache._native.dnsranges import Ranges
from edgecache.geodns import mapping

TOP = {4: 1 << 32, 6: 1 << 128}


def made(version: int, cuts: list[tuple[int, int]]) -> mapping.Ranges:
    ranges = mapping.Ranges.empty(version)
    ranges.append(0, 0)
    for start, number in sorted({start: number for start, number in cuts if start}.items()):
        ranges.append(start, number)
    return ranges


def addresses(version: int) -> st.SearchStrategy[int]:
    """Spread, and close together at the ends and in the middle."""
    top = TOP[version]
    near = st.integers(0, 300)
    return st.one_of(
        st.integers(0, top - 1),
        near,
        near.map(lambda n: top - 1 - n),
        near.map(lambda n: (top >> 1) - 150 + n),
        st.integers(0, TOP[version].bit_length() - 2).map(lambda bit: 1 << bit),
    )


@pytest.mark.parametrize("version", [4, 6])
@given(data=st.data())
def test_finds_what_the_plain_ones_find(version: int, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.tuples(addresses(version), st.integers(0, 5)), max_size=300))
    plain = made(version, cuts)
    compiled = Ranges(plain.hi, plain.lo, plain.ids)
    assert len(compiled) == len(plain)
    assert compiled.largest == max(plain.ids)
    wanted = data.draw(st.lists(addresses(version), max_size=20))
    for start, _ in cuts:
        wanted += [start, (start - 1) % TOP[version], (start + 1) % TOP[version]]
    for address in wanted:
        assert compiled.find(address.to_bytes(4 if version == 4 else 16, "big")) == plain.find(address), hex(address)


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 127, 128, 129, 4096, 4097])
@pytest.mark.parametrize("version", [4, 6])
def test_every_size_around_a_block(version: int, count: int) -> None:
    step = TOP[version] // (count + 1) | 1
    plain = made(version, [(i * step, i + 1) for i in range(1, count)])
    compiled = Ranges(plain.hi, plain.lo, plain.ids)
    for i in range(count):
        for address in (plain.start(i), plain.start(i) + step // 2):
            assert compiled.find(address.to_bytes(4 if version == 4 else 16, "big")) == plain.find(address)


@given(st.integers(0, 32), st.integers(0, (1 << 32) - 1))
@example(0, 0)
@example(32, (1 << 32) - 1)
def test_the_prefix_is_the_shortest_that_fits(length: int, address: int) -> None:
    """A range that is a network is found as that network, whatever the address in it."""
    base = address >> (32 - length) << (32 - length)
    end = base + (1 << (32 - length))
    plain = made(4, [(base, 1), *([(end, 2)] if end < TOP[4] else [])])
    number, prefix = Ranges(plain.hi, plain.lo, plain.ids).find(address.to_bytes(4, "big"))
    assert prefix == (length if number == 1 or length == 0 else prefix)
    assert (number == 1) == (base > 0)


@pytest.mark.parametrize(
    ("hi", "lo", "ids"),
    [
        pytest.param([], None, [], id="nothing"),
        pytest.param([1], None, [0], id="does not start at 0"),
        pytest.param([0, 5, 5], None, [0, 1, 2], id="twice the same"),
        pytest.param([0, 5, 4], None, [0, 1, 2], id="descending"),
        pytest.param([0, 5], None, [0], id="a number missing"),
        pytest.param([0, 1], [0], [0, 1], id="a lower half missing"),
        pytest.param([0, 1, 1], [0, 7, 7], [0, 1, 2], id="twice the same, IPv6"),
        pytest.param([0], [1], [0], id="does not start at 0, IPv6"),
    ],
)
def test_refuses(hi: list[int], lo: list[int] | None, ids: list[int]) -> None:
    with pytest.raises(ValueError, match=r"range|starts"):
        Ranges(array("I" if lo is None else "Q", hi), None if lo is None else array("Q", lo), array("I", ids))


def test_an_address_of_the_other_family_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bits"):
        Ranges(array("I", [0]), None, array("I", [0])).find(bytes(16))
