"""Header fields as they came: order, case and repetition kept, look-ups by lower-case name (RFC 9110 §5).

Values are `str` decoded as Latin-1, so that every octet survives the way through (RFC 9110 §5.5).
"""

from collections.abc import Callable, Container, Iterable, Iterator


class Headers:
    """An immutable list of field lines. Look-up names are given in lower case."""

    __slots__ = ("_index", "lines")

    lines: tuple[tuple[str, str], ...]
    """`(name, value)` in the order received; the name in the case received."""

    def __init__(self, lines: Iterable[tuple[str, str]] = ()) -> None:
        self.lines = tuple(lines)
        self._index: dict[str, list[str]] | None = None

    def _by_name(self) -> dict[str, list[str]]:
        index = self._index
        if index is None:
            index = {}
            for name, value in self.lines:
                index.setdefault(name.lower(), []).append(value)
            self._index = index
        return index

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.lines)

    def __len__(self) -> int:
        return len(self.lines)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self.lines == other.lines

    def __hash__(self) -> int:
        return hash(self.lines)

    def __repr__(self) -> str:
        return f"Headers({list(self.lines)!r})"

    def get(self, name: str) -> str | None:
        """The combined value: all lines of this name joined by ", " (RFC 9110 §5.3), or None."""
        values = self._by_name().get(name)
        if values is None:
            return None
        return values[0] if len(values) == 1 else ", ".join(values)

    def get_all(self, name: str) -> list[str]:
        """The values of all lines of this name, in order; not a copy, do not change it."""
        return self._by_name().get(name) or []

    def without(self, names: Container[str]) -> "Headers":
        """These fields less those whose lower-case name is in `names`."""
        return Headers(line for line in self.lines if line[0].lower() not in names)

    def plus(self, lines: Iterable[tuple[str, str]]) -> "Headers":
        """These fields, then `lines`."""
        return Headers((*self.lines, *lines))

    def replaced(self, name: str, value: str, *, spell: Callable[[str], str] = str.title) -> "Headers":
        """These fields with one line for `name`, where the first was, or at the end where there was none."""
        kept: list[tuple[str, str]] = []
        done = False
        for line in self.lines:
            if line[0].lower() != name:
                kept.append(line)
            elif not done:
                kept.append((line[0], value))
                done = True
        if not done:
            kept.append((spell(name), value))
        return Headers(kept)
