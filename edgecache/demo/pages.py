"""What the shop's pages look like and how long they may be kept. Pure: the time and the catalogue are arguments.

Every page tells browsers `no-cache` (ask each time) and the edge, by `CDN-Cache-Control` (RFC 9213), how long it may
answer by itself. So each reload reaches the edge, and what a person sees is the edge's doing, not the browser's.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from string import Template

from edgecache.demo.catalogue import GLAZES, Catalogue, Product

SITE = Path(__file__).parent / "site"
ASSET_FRESH = "max-age=3600"
ASSETS: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}

LANGUAGES: Mapping[str, tuple[str, str, str, str]] = {
    "en": (
        "English",
        "Hello",
        "This page speaks the language your browser asks for.",
        "The edge keeps a copy of each:",
    ),
    "de": ("Deutsch", "Moin", "Diese Seite spricht die Sprache, um die dein Browser bittet.", "Der Edge behält jede:"),
    "fr": ("Français", "Bonjour", "Cette page parle la langue de votre navigateur.", "Le cache garde chacune :"),
    "es": ("Español", "Hola", "Esta página habla el idioma de su navegador.", "La caché guarda una copia de cada una:"),
}


@dataclass(frozen=True, slots=True)
class Page:
    """A response of the shop, whole."""

    body: bytes
    headers: Mapping[str, str]
    status: int = 200
    content_type: str = "text/html; charset=utf-8"


@cache
def _template(name: str) -> Template:
    return Template((SITE / name).read_text(encoding="utf-8"))


def _fill(name: str, values: Mapping[str, object]) -> str:
    return _template(f"pages/{name}.html").substitute({key: escape(str(value)) for key, value in values.items()})


def clock_face(now: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(now))


def _page(
    title: str,
    main: str,
    now: float,
    *,
    fresh: str | None,
    keys: str = "",
    lang: str = "en",
    status: int = 200,
    vary: str = "",
) -> Page:
    """The page around `main`. `fresh`: what the edge is told; None: no-store for everybody.

    The ETag is weak and made from `main` alone: two renderings that differ in the footer's time mean the same.
    """
    headers = {"Cache-Control": "no-store"}
    if fresh is not None:
        digest = hashlib.sha256(main.encode()).hexdigest()[:16]
        headers = {"Cache-Control": "no-cache", "CDN-Cache-Control": fresh, "ETag": f'W/"{digest}"'}
    if keys:
        headers["Surrogate-Key"] = keys
    if vary:
        headers["Vary"] = vary
        headers["Content-Language"] = lang
    told = "Cache-Control: no-store" if fresh is None else f"CDN-Cache-Control: {fresh}"
    html = _template("pages/layout.html").substitute(
        title=escape(title), main=main, lang=lang, made=clock_face(now), freshness=escape(told)
    )
    return Page(html.encode(), headers, status)


def home(now: float) -> Page:
    return _page("Welcome", _fill("home", {}), now, fresh="max-age=60", keys="pages")


def products(catalogue: Catalogue, now: float) -> Page:
    shelf = list(catalogue)
    keys = " ".join(["products", *(product.key for product in shelf)])
    items = "".join(_fill("item", _facts(product)) for product in shelf)
    main = _template("pages/products.html").substitute(keys=escape(keys), items=items)
    return _page("The shelf", main, now, fresh="max-age=300", keys=keys)


def product(item: Product, now: float) -> Page:
    main = _fill("product", _facts(item) | {"blurb": item.blurb, "key": item.key, "next": item.version + 1})
    return _page(item.name, main, now, fresh="max-age=300", keys=f"products {item.key}")


def product_picture(item: Product) -> Page:
    """The product in its glaze: an SVG template, tagged like its page."""
    glaze = GLAZES[item.glaze]
    values = {"name": escape(item.name), "light": glaze.light, "dark": glaze.dark}
    body = _template(f"products/{item.number}.svg").substitute(values).encode()
    return asset_page(body, "image/svg+xml", keys=f"products {item.key}")


def kiln(now: float) -> Page:
    degrees = 1180 + int(now * 7) % 97
    fresh = "max-age=5, stale-while-revalidate=60"
    main = _fill("kiln", {"degrees": degrees, "made": clock_face(now), "freshness": fresh})
    return _page("The kiln", main, now, fresh=fresh)


def about(now: float) -> Page:
    return _page("About us", _fill("about", {}), now, fresh="max-age=5")


def basket(now: float) -> Page:
    return _page("Basket", _fill("basket", {"made": clock_face(now)}), now, fresh=None)


def slow(now: float, site_url: str) -> Page:
    main = _fill("slow", {"curl": f"curl -so /dev/null -w '%{{time_total}} s\\n' {site_url}/slow"})
    return _page("Slow", main, now, fresh="max-age=60", keys="pages")


def hello(language: str, now: float, site_url: str) -> Page:
    _, greeting, sentence, explain = LANGUAGES[language]
    langs = "".join(
        f"<li>{escape(name)}: <code>curl -si -H 'Accept-Language: {code}' {escape(site_url)}/hello</code></li>\n"
        for code, (name, *_) in LANGUAGES.items()
    )
    main = _template("pages/hello.html").substitute(
        greeting=escape(greeting), sentence=escape(sentence), explain=escape(explain), langs=langs
    )
    return _page(greeting, main, now, fresh="max-age=120", lang=language, vary="Accept-Language")


def missing(now: float) -> Page:
    return _page("Not here", _fill("missing", {}), now, fresh="max-age=10", status=404)


def asset_page(body: bytes, content_type: str, *, keys: str = "assets") -> Page:
    digest = hashlib.sha256(body).hexdigest()[:16]
    headers = {
        "Cache-Control": "no-cache",
        "CDN-Cache-Control": ASSET_FRESH,
        "ETag": f'"{digest}"',
        "Surrogate-Key": keys,
    }
    return Page(body, headers, content_type=content_type)


@cache
def _assets() -> Mapping[str, Page]:
    return {
        path.name: asset_page(path.read_bytes(), kind)
        for path in (SITE / "assets").iterdir()
        if (kind := ASSETS.get(path.suffix)) is not None
    }


def asset(name: str) -> Page | None:
    """A file of site/assets by its name, or None."""
    return _assets().get(name)


def choose_language(accept: str) -> str:
    """The best of ours for an Accept-Language value (RFC 9110 §12.5.4, by primary subtag); English when none fits."""
    best, best_q = "en", 0.0
    for item in accept.split(","):
        tag, _, weight = item.strip().partition(";")
        code = tag.strip().lower().partition("-")[0]
        try:
            q = float(weight.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
        if code in LANGUAGES and q > best_q:
            best, best_q = code, q
    return best


def _facts(item: Product) -> dict[str, object]:
    return {"number": item.number, "name": item.name, "price": item.price, "version": item.version}
