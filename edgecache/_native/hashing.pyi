"""SipHash (Aumasson and Bernstein, INDOCRYPT 2012), for keys of the arena and for purge tags.

From the paper's description: a keyed hash with no structure a stranger could use to make two names collide, as long
as the key stays secret. Keys of the arena live for one boot and take the short rounds (1-3) and a 128-bit result;
tags travel between nodes, so their key is public and fixed and they take the full rounds (2-4).
"""

def hash_key(secret: bytes, data: bytes) -> bytes:
    """128-bit keyed hash of a cache key (SipHash-1-3, 128-bit output), `secret` = 16 octets drawn per boot."""

def hash_tag(data: bytes) -> int:
    """64-bit hash of a purge tag, the same on every node and boot (SipHash-2-4 under a fixed, public key). Never 0."""

def siphash24(key: bytes, data: bytes) -> int:
    """Plain SipHash-2-4 with a 64-bit result; `key` = 16 octets."""
