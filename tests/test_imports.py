"""Imports run downward only: cli -> app -> shells -> policy -> http -> _native, read from the sources."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "edgecache"

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"_native"}),
    frozenset({"http"}),
    frozenset({"policy"}),
    frozenset({"config"}),
    frozenset({"purge", "observe"}),
    frozenset({"origin", "store"}),
    frozenset({"edge", "admin", "geodns"}),
    frozenset({"app"}),
    frozenset({"supervisor", "demo", "report"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
"""From the bottom. A room sees those below it and itself, never one beside it."""

RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
CONTRACTS = {"edgecache.admin.node": RANK["origin"]}
"""Modules that only say what a room above asks of one below: they stand where both see them."""

UPPER_PURGE = frozenset({"edgecache.purge.coordinator"})
"""The coordinator is a server of its own: it may see what the admin side sees."""

BLIND: dict[str, frozenset[str]] = {
    "policy": frozenset({"policy", "http"}),
    "store": frozenset({"store", "http", "_native", "config", "purge", "observe"}),
    "origin": frozenset({"origin", "http", "_native", "config", "observe"}),
    "geodns": frozenset({"geodns", "http", "_native", "config", "observe"}),
}
"""Rooms that see less than their place allows: all they may see."""

LIBRARIES: dict[str, tuple[str, ...]] = {
    "aiohttp": ("edgecache.admin", "edgecache.demo", "edgecache.purge.transport", "edgecache.purge.coordinator"),
    "nats": ("edgecache.purge.transport",),
    "click": ("edgecache.cli",),
    "rich": ("edgecache.cli", "edgecache.report"),
    "prometheus_client": ("edgecache.observe",),
    "yaml": ("edgecache.config",),
    "diskcache": ("edgecache.store", "edgecache.purge"),
    "dns": ("edgecache.geodns", "edgecache.config.zones"),
    "maxminddb": ("edgecache.geodns",),
    "uvloop": ("edgecache.app", "edgecache.supervisor", "edgecache.demo"),
}
"""Where a library may be imported: these modules and what is below them."""

Import = tuple[str, str, int]
"""Who imports what, on which line."""


def imports_of(module: str, source: str) -> Iterator[Import]:
    """Every import, also those inside functions and for types only."""
    package = module.split(".")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield module, name.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level]) if node.level else ""
            target = ".".join(part for part in (base, node.module or "") if part)
            for name in node.names:
                yield module, f"{target}.{name.name}", node.lineno


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted([*ROOT.rglob("*.py"), *ROOT.rglob("*.pyi")]):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def room(module: str) -> str | None:
    """The room of a module of ours; "" for the package itself."""
    parts = module.split(".")
    return None if parts[0] != "edgecache" else parts[1] if len(parts) > 1 else ""


def under(module: str, above: str) -> bool:
    return module == above or module.startswith(above + ".")


def fault(one: Import) -> str | None:
    """Why this import is wrong; None where it is not."""
    module, target, line = one
    here, there = room(module), room(target)
    where = f"{module}:{line} imports {target}"
    if there is None:
        allowed = LIBRARIES.get(target.split(".")[0])
        if allowed is not None and not any(under(module, place) for place in allowed):
            return f"{where}: only {', '.join(allowed)} may"
        return None
    if there not in RANK:  # a name of the package itself, such as __version__
        return None
    if here == "":
        return f"{where}: the package itself imports nothing"
    if here not in RANK:
        return f"{where}: {here} has no place in LAYERS"
    if here in BLIND and there not in BLIND[here]:
        return f"{where}: {here} may only see {', '.join(sorted(BLIND[here]))}"
    if under(module, "edgecache.purge.coordinator"):
        return None if RANK[there] <= RANK["admin"] else f"{where}: upward"
    if any(under(target, name) for name in UPPER_PURGE) and RANK[here] <= RANK["admin"]:
        return f"{where}: upward"
    rank = next((rank for name, rank in CONTRACTS.items() if under(target, name)), RANK[there])
    if here != there and rank >= RANK[here]:
        return f"{where}: not downward"
    return None


def test_imports_run_downward() -> None:
    found = [
        why
        for module, path in modules()
        for one in imports_of(module, path.read_text(encoding="utf-8"))
        if (why := fault(one)) is not None
    ]
    assert not found, "\n" + "\n".join(found)


def test_the_walk_sees_the_house() -> None:
    rooms = {room(module) for module, _ in modules()}
    assert rooms - {""} <= set(RANK)
    assert {"http", "policy", "config", "observe", "admin", "cli"} <= rooms


@pytest.mark.parametrize(
    ("module", "source"),
    [
        pytest.param("edgecache.http.dates", "from edgecache.policy import rules", id="up"),
        pytest.param("edgecache.policy.rules", "import edgecache.config.model", id="policy-config"),
        pytest.param("edgecache.policy.rules", "from edgecache._native.arena import Arena", id="policy-native"),
        pytest.param("edgecache.policy.rules", "import aiohttp", id="policy-library"),
        pytest.param("edgecache.http.message", "from edgecache.config.model import Config", id="http-config"),
        pytest.param("edgecache.store.memory", "from edgecache.policy.site import SitePolicy", id="store-policy"),
        pytest.param("edgecache.origin.client", "from edgecache.policy import verdicts", id="origin-policy"),
        pytest.param("edgecache.origin.client", "import aiohttp", id="origin-aiohttp"),
        pytest.param("edgecache.edge.listener", "def f():\n    import aiohttp.web", id="edge-aiohttp-inside"),
        pytest.param("edgecache.edge.pipeline", "from edgecache.admin import api", id="sideways"),
        pytest.param("edgecache.edge.pipeline", "from ..admin import api", id="relative"),
        pytest.param("edgecache.edge.pipeline", "from edgecache import app", id="from-the-package"),
        pytest.param("edgecache.app", "from edgecache.cli import main", id="app-cli"),
        pytest.param("edgecache.geodns.server", "from edgecache.edge import listener", id="geodns-edge"),
        pytest.param("edgecache.edge.pipeline", "import edgecache.purge.coordinator", id="coordinator"),
        pytest.param("edgecache", "from edgecache.http import headers", id="package"),
        pytest.param("edgecache.new.thing", "import edgecache.http", id="new-room"),
        pytest.param("edgecache.edge.x", "if TYPE_CHECKING:\n    from edgecache.app import serve", id="types-only"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str) -> None:
    assert any(fault(one) for one in imports_of(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("edgecache.policy.rules", "from edgecache.http.headers import Headers\nfrom .site import SitePolicy"),
        ("edgecache.app", "from edgecache.edge import listener\nimport asyncio"),
        ("edgecache.admin.api", "from aiohttp import web\nfrom edgecache.config.model import AdminConfig"),
        ("edgecache.purge.coordinator.server", "from edgecache.admin import tokens"),
        ("edgecache.admin.openapi", "from edgecache import __version__"),
    ],
)
def test_a_right_import_is_not(module: str, source: str) -> None:
    assert not [why for one in imports_of(module, source) if (why := fault(one))]
