"""A film of any length in octets, made by hand: WebM with one colour for each thirty seconds and room between them.

Matroska's Void elements are there to be skipped, so the file can be sparse; its index (Cues) stands in front, and a
player that seeks goes straight to the cluster it needs.
"""

import base64
import struct
from pathlib import Path

SECONDS = 30
"""Of each cluster; a frame a second."""

FRAME = """
  (() => {
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = 64;
    const context = canvas.getContext('2d', {alpha: false});
    context.fillStyle = 'rgb(%d, %d, %d)';
    context.fillRect(0, 0, 64, 64);
    return canvas.toDataURL('image/webp', 0.9).split(',')[1];
  })()
"""
"""A script: the browser's own encoder makes a picture, whose octets are a key frame of VP8."""


def key_frame(webp: str) -> bytes:
    """The VP8 frame in a WebP file, which comes in base64."""
    data = base64.b64decode(webp)
    at = 12
    while at < len(data):
        kind, size = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        if kind == b"VP8 ":
            return data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    raise AssertionError("the browser makes no lossy WebP")


def colour(cluster: int) -> tuple[int, int, int]:
    return 20 + 18 * cluster, 230 - 18 * cluster, 120


def make_film(path: Path, frames: list[bytes], gap: int) -> int:
    """Write a film with a cluster for each frame and `gap` octets of nothing after each. Its size."""
    info = _element(
        0x1549A966,
        _element(0x2AD7B1, _number(1_000_000))
        + _element(0x4489, struct.pack(">d", len(frames) * SECONDS * 1000.0))
        + _element(0x4D80, b"test")
        + _element(0x5741, b"test"),
    )
    video = _element(0xB0, _number(64)) + _element(0xBA, _number(64))
    entry = (
        _element(0xD7, _number(1))
        + _element(0x73C5, _number(1))
        + _element(0x83, _number(1))
        + _element(0x86, b"V_VP8")
        + _element(0x23E383, _number(1_000_000_000))
        + _element(0xE0, video)
    )
    tracks = _element(0x1654AE6B, _element(0xAE, entry))
    clusters = [_cluster(number, frame) for number, frame in enumerate(frames)]
    cues_at = len(info) + len(tracks)
    at = cues_at + len(_cues([0] * len(frames)))
    places = []
    for cluster in clusters:
        places.append(at)
        at += len(cluster) + _HEAD + gap
    front = _element(0x1A45DFA3, _header()) + _id(0x18538067) + b"\x01" + at.to_bytes(7, "big")
    with path.open("wb") as file:
        file.write(front + info + tracks + _cues(places))
        for cluster in clusters:
            file.write(cluster + b"\xec\x01" + gap.to_bytes(7, "big"))
            file.seek(gap, 1)
        file.truncate()
        file.truncate(len(front) + at)
    return len(front) + at


_HEAD = 9
"""Of a Void element with a size of eight octets."""


def _id(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _number(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, "big")


def _element(number: int, content: bytes) -> bytes:
    return _id(number) + b"\x01" + len(content).to_bytes(7, "big") + content


def _header() -> bytes:
    return (
        _element(0x4286, _number(1))
        + _element(0x42F7, _number(1))
        + _element(0x42F2, _number(4))
        + _element(0x42F3, _number(8))
        + _element(0x4282, b"webm")
        + _element(0x4287, _number(4))
        + _element(0x4285, _number(2))
    )


def _cluster(number: int, frame: bytes) -> bytes:
    blocks = b"".join(
        _element(0xA3, b"\x81" + struct.pack(">h", second * 1000) + b"\x80" + frame) for second in range(SECONDS)
    )
    return _element(0x1F43B675, _element(0xE7, _number(number * SECONDS * 1000)) + blocks)


def _cues(places: list[int]) -> bytes:
    points = b""
    for number, place in enumerate(places):
        where = _element(0xF7, _number(1)) + _element(0xF1, _number(place, 8))
        points += _element(0xBB, _element(0xB3, _number(number * SECONDS * 1000)) + _element(0xB7, where))
    return _element(0x1C53BB6B, points)
