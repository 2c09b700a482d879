"""What the shop sells. In memory, and gone when the demo stops."""

from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Glaze:
    """A colour of the shop's kiln: the light and the dark end of it."""

    name: str
    light: str
    dark: str


GLAZES = (
    Glaze("celadon", "#9cc8b4", "#4f8a7a"),
    Glaze("oxblood", "#c96a55", "#7d2a24"),
    Glaze("cobalt", "#7fa3d6", "#2c4a8c"),
    Glaze("honey", "#e6bd6a", "#a8702a"),
    Glaze("plum", "#b58ab8", "#643a6c"),
)


@dataclass(frozen=True, slots=True)
class Product:
    number: int
    title: str
    blurb: str
    cents: int
    glaze: int
    version: int = 1

    @property
    def name(self) -> str:
        return f"{self.title} in {GLAZES[self.glaze].name}"

    @property
    def price(self) -> str:
        return f"€ {self.cents / 100:.2f}"

    @property
    def key(self) -> str:
        """The surrogate key of everything this product is shown on."""
        return f"product-{self.number}"


SHELF = (
    Product(41, "Tide cup", "Thrown thin, for coffee at six in the morning.", 2400, 2),
    Product(42, "Harbour bowl", "Wide, deep and hard to put down. Soup, or everything on the table.", 3800, 0),
    Product(43, "Ember vase", "One branch is enough.", 6200, 1),
    Product(44, "Moss teapot", "Pours without dripping. We tried four hundred spouts.", 8900, 0),
    Product(45, "Fog plate", "Flat as the bay before sunrise.", 2900, 4),
    Product(46, "Dune jar", "Keeps salt dry and biscuits secret.", 4600, 3),
)


class Catalogue:
    """The products by number, and their next editions."""

    def __init__(self, shelf: tuple[Product, ...] = SHELF) -> None:
        self._products = {product.number: product for product in shelf}

    def __iter__(self) -> Iterator[Product]:
        return iter(self._products.values())

    def get(self, number: int) -> Product | None:
        return self._products.get(number)

    def publish(self, number: int) -> Product:
        """The next version of a product: another glaze, another price. Raises `KeyError` for an unknown number."""
        old = self._products[number]
        step = 250 if old.version % 3 else -400
        new = replace(old, glaze=(old.glaze + 1) % len(GLAZES), cents=old.cents + step, version=old.version + 1)
        self._products[number] = new
        return new
