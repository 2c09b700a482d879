"""A documentation tree to serve: one that the machine has, else one made here."""

import zlib
from html.parser import HTMLParser
from pathlib import Path
from struct import pack

KNOWN = (
    "/usr/share/doc/nodejs/api/fs.html",
    "/usr/share/doc/valgrind/html/manual.html",
    "/usr/share/doc/libxslt1-dev/html/index.html",
    "/usr/share/doc/python3-doc/html/index.html",
)


class _Assets(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        wanted = values.get("href") if tag == "link" and values.get("rel") == "stylesheet" else values.get("src")
        if wanted and "//" not in wanted and not wanted.startswith(("/", "data:")):
            self.found.append(wanted.partition("?")[0].partition("#")[0])


def assets_of(page: Path) -> list[str]:
    """The style sheets, scripts and images that a page loads from beside it, as it names them."""
    parser = _Assets()
    parser.feed(page.read_text(encoding="utf-8", errors="replace"))
    return sorted({name for name in parser.found if (page.parent / name).resolve().is_file()})


def real_page() -> Path | None:
    """A page of installed documentation that loads assets of its own."""
    for name in KNOWN:
        page = Path(name)
        if page.is_file() and assets_of(page):
            return page
    return None


def make_site(directory: Path) -> Path:
    """A page with a style sheet, a script and a dozen images of both kinds; returns the page."""
    directory.mkdir(parents=True)
    images = []
    for number in range(6):
        svg = directory / f"figure-{number}.svg"
        svg.write_text(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 100">'
            + "".join(f'<circle cx="{9 * i}" cy="{(i * i * (number + 3)) % 100}" r="4"/>' for i in range(22))
            + "</svg>\n"
        )
        png = directory / f"plate-{number}.png"
        png.write_bytes(_png(64, 64, number))
        images += [svg.name, png.name]
    (directory / "manual.css").write_text("body { font: 16px serif; margin: 2em; }\n" + "/* rule */\n" * 400)
    (directory / "manual.js").write_text("document.documentElement.dataset.ready = 'yes';\n" + "// line\n" * 400)
    page = directory / "index.html"
    page.write_text(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Manual</title>"
        '<link rel="icon" href="figure-0.svg"><link rel="stylesheet" href="manual.css">'
        '<script src="manual.js"></script>'
        + "".join(f'<p>Chapter {i}, {"word " * 80}<img src="{name}" alt=""></p>\n' for i, name in enumerate(images))
        + "</html>\n"
    )
    return page


def _png(width: int, height: int, seed: int) -> bytes:
    rows = b"".join(
        b"\0" + bytes((x * y * (seed + 1) + c * 85) % 256 for x in range(width) for c in range(3))
        for y in range(height)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
