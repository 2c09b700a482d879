"""SipHash against published vectors and against the paper's description in plain Python."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache._native.hashing import hash_key, hash_tag, siphash24

MASK = (1 << 64) - 1
KEY = bytes(range(16))

# The designers' published results of SipHash-2-4 for key 00…0f and inputs of 0 to 63 octets 00 01 02 …
VECTORS = [
    "726fdb47dd0e0e31", "74f839c593dc67fd", "0d6c8009d9a94f5a", "85676696d7fb7e2d", "cf2794e0277187b7",
    "18765564cd99a68d", "cbc9466e58fee3ce", "ab0200f58b01d137", "93f5f5799a932462", "9e0082df0ba9e4b0",
    "7a5dbbc594ddb9f3", "f4b32f46226bada7", "751e8fbc860ee5fb", "14ea5627c0843d90", "f723ca908e7af2ee",
    "a129ca6149be45e5", "3f2acc7f57c29bdb", "699ae9f52cbe4794", "4bc1b3f0968dd39c", "bb6dc91da77961bd",
    "bed65cf21aa2ee98", "d0f2cbb02e3b67c7", "93536795e3a33e88", "a80c038ccd5ccec8", "b8ad50c6f649af94",
    "bce192de8a85b8ea", "17d835b85bbb15f3", "2f2e6163076bcfad", "de4daaaca71dc9a5", "a6a2506687956571",
    "ad87a3535c49ef28", "32d892fad841c342", "7127512f72f27cce", "a7f32346f95978e3", "12e0b01abb051238",
    "15e034d40fa197ae", "314dffbe0815a3b4", "027990f029623981", "cadcd4e59ef40c4d", "9abfd8766a33735c",
    "0e3ea96b5304a7d0", "ad0c42d6fc585992", "187306c89bc215a9", "d4a60abcf3792b95", "f935451de4f21df2",
    "a9538f0419755787", "db9acddff56ca510", "d06c98cd5c0975eb", "e612a3cb9ecba951", "c766e62cfcadaf96",
    "ee64435a9752fe72", "a192d576b245165a", "0a8787bf8ecb74b2", "81b3e73d20b49b6f", "7fa8220ba3b2ecea",
    "245731c13ca42499", "b78dbfaf3a8d83bd", "ea1ad565322a1a0b", "60e61c23a3795013", "6606d7e446282b93",
    "6ca4ecb15c5f91e1", "9f626da15c9625f3", "e51b38608ef25f57", "958a324ceb064572",
]  # fmt: skip

# The first results of their 128-bit variant, as octets.
WIDE = [
    "a3817f04ba25a8e66df67214c7550293",
    "da87c1d86b99af44347659119b22fc45",
    "8177228da4a45dc7fca38bdef60affe4",
]


def rotated(x: int, b: int) -> int:
    return ((x << b) | (x >> (64 - b))) & MASK


def rounds(v: list[int], count: int) -> None:
    for _ in range(count):
        v[0] = (v[0] + v[1]) & MASK
        v[2] = (v[2] + v[3]) & MASK
        v[1], v[3] = rotated(v[1], 13) ^ v[0], rotated(v[3], 16) ^ v[2]
        v[0] = rotated(v[0], 32)
        v[2] = (v[2] + v[1]) & MASK
        v[0] = (v[0] + v[3]) & MASK
        v[1], v[3] = rotated(v[1], 17) ^ v[2], rotated(v[3], 21) ^ v[0]
        v[2] = rotated(v[2], 32)


def plain(c: int, d: int, key: bytes, data: bytes, wide: bool) -> bytes:
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = [k0, k1, k0, k1]
    for i, word in enumerate((b"somepseu", b"dorandom", b"lygenera", b"tedbytes")):
        v[i] ^= int.from_bytes(word, "big")
    v[1] ^= 0xEE if wide else 0
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        rounds(v, c)
        v[0] ^= word
    v[2] ^= 0xEE if wide else 0xFF
    rounds(v, d)
    out = (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, "little")
    if wide:
        v[1] ^= 0xDD
        rounds(v, d)
        out += (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, "little")
    return out


@pytest.mark.parametrize(("size", "expected"), list(enumerate(VECTORS)))
def test_published_vectors(size: int, expected: str) -> None:
    assert f"{siphash24(KEY, bytes(range(size))):016x}" == expected
    assert plain(2, 4, KEY, bytes(range(size)), wide=False)[::-1].hex() == expected


@pytest.mark.parametrize(("size", "expected"), list(enumerate(WIDE)))
def test_the_plain_wide_variant_is_the_published_one(size: int, expected: str) -> None:
    assert plain(2, 4, KEY, bytes(range(size)), wide=True).hex() == expected


@given(st.binary(min_size=16, max_size=16), st.binary(max_size=300))
def test_hash_key_is_siphash_1_3_of_128_bits(secret: bytes, data: bytes) -> None:
    assert hash_key(secret, data) == plain(1, 3, secret, data, wide=True)


@given(st.binary(max_size=300))
def test_hash_tag_is_siphash_2_4_under_the_public_key(data: bytes) -> None:
    assert hash_tag(data).to_bytes(8, "little") == plain(2, 4, b"edgecache-tag-v1", data, wide=False)


def test_a_tag_is_the_same_on_every_node() -> None:
    """Tags are in logs and on the wire: this value may never change."""
    assert hash_tag(b"https://www.example.com/") == 0x071F5A15F429AEE6


@pytest.mark.parametrize(("function", "size"), list(product((hash_key, siphash24), (0, 15, 17))))
def test_other_key_sizes_are_refused(function: object, size: int) -> None:
    with pytest.raises(ValueError, match="16 octets"):
        function(bytes(size), b"")  # type: ignore[operator]
