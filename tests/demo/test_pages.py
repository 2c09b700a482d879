"""The demo's pages: every one renders, says how long it may be kept, and changes when what it shows changes."""

import re
from html.parser import HTMLParser

import pytest

from edgecache.demo import pages
from edgecache.demo.catalogue import GLAZES, SHELF, Catalogue

NOW = 1_700_000_000.0
URL = "http://127.0.0.1:8080"


def every_page() -> dict[str, pages.Page]:
    catalogue = Catalogue()
    return {
        "home": pages.home(NOW),
        "products": pages.products(catalogue, NOW),
        "product": pages.product(SHELF[1], NOW),
        "kiln": pages.kiln(NOW),
        "about": pages.about(NOW),
        "basket": pages.basket(NOW),
        "slow": pages.slow(NOW, URL),
        **{f"hello-{language}": pages.hello(language, NOW, URL) for language in pages.LANGUAGES},
        "missing": pages.missing(NOW),
    }


class Links(HTMLParser):
    """What a page refers to, and which elements are left open."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "img", "br", "input"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action"):
                self.found.append(value or "")
            if name.startswith("on") or name == "style":
                self.inline.append(f"{tag} {name}")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", every_page())
def test_a_page_is_well_formed_and_asks_nobody_else(name: str) -> None:
    page = every_page()[name]
    text = page.body.decode()
    links = Links()
    links.feed(text)
    assert links.open == []
    assert links.inline == [], "the content security policy forbids inline code and style"
    assert all(link.startswith("/") for link in links.found)
    assert not re.search(r"\$[a-z{]", text), "a placeholder was left unfilled"
    assert "<script>" not in text
    assert "<style" not in text


@pytest.mark.parametrize("name", every_page())
def test_a_page_says_how_long_it_may_be_kept(name: str) -> None:
    headers = every_page()[name].headers
    if name == "basket":
        assert headers["Cache-Control"] == "no-store"
        assert "ETag" not in headers
    else:
        assert headers["Cache-Control"] == "no-cache"
        assert headers["CDN-Cache-Control"].startswith("max-age=")


def test_what_a_product_is_shown_on_carries_its_key() -> None:
    catalogue = Catalogue()
    item = catalogue.get(42)
    assert item is not None
    for page in (pages.products(catalogue, NOW), pages.product(item, NOW), pages.product_picture(item)):
        assert "product-42" in page.headers["Surrogate-Key"].split()


def test_publishing_changes_name_price_and_version_and_so_every_etag() -> None:
    catalogue = Catalogue()
    before = catalogue.get(42)
    assert before is not None
    after = catalogue.publish(42)
    assert catalogue.get(42) == after
    assert (after.version, after.price != before.price, after.name != before.name) == (2, True, True)
    assert pages.product(after, NOW).headers["ETag"] != pages.product(before, NOW).headers["ETag"]
    assert pages.product_picture(after).body != pages.product_picture(before).body


def test_publishing_for_ever_keeps_prices_and_glazes_sane() -> None:
    catalogue = Catalogue()
    for _ in range(200):
        product = catalogue.publish(41)
        assert product.cents > 0
        assert product.glaze < len(GLAZES)


def test_the_time_in_the_footer_does_not_change_the_etag() -> None:
    first, second = pages.about(NOW), pages.about(NOW + 7)
    assert first.body != second.body
    assert first.headers["ETag"] == second.headers["ETag"]


@pytest.mark.parametrize(
    ("accept", "language"),
    [
        ("", "en"),
        ("de", "de"),
        ("de-AT,de;q=0.9", "de"),
        ("nl, fr;q=0.5, en;q=0.1", "fr"),
        ("en;q=0.2, es;q=0.8", "es"),
        ("fr;q=0, de;q=0.1", "de"),
        ("fr;q=much, de", "de"),
        ("xx", "en"),
        (",,;;", "en"),
    ],
)
def test_language_is_chosen_by_weight(accept: str, language: str) -> None:
    assert pages.choose_language(accept) == language


@pytest.mark.parametrize(
    "name", ["../pages/home.html", "..", "", "shop.css/..", "none.css", "/etc/passwd", "shop.css\0"]
)
def test_only_assets_are_assets(name: str) -> None:
    assert pages.asset(name) is None


def test_assets_are_served_with_their_type() -> None:
    page = pages.asset("shop.css")
    assert page is not None
    assert page.content_type == "text/css; charset=utf-8"
    assert page.headers["ETag"].startswith('"')
