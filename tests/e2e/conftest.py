"""One nginx for all, and one edge in front of it for all that do not stop it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.e2e.edge import Edge, edge_process
from tests.e2e.nginx import Nginx, nginx
from tests.e2e.tree import make_site, real_page


@pytest.fixture(scope="session")
def doc() -> Path:
    """A page of real documentation."""
    page = real_page()
    if page is None:
        pytest.skip("no documentation with assets is installed; the generated site is tested all the same")
    return page


@pytest.fixture(scope="session")
def www(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """nginx as the origin: /site/ (generated), /doc/ (the machine's), /brief/ and /never/ with other lifetimes."""
    program = require("nginx")
    base = tmp_path_factory.mktemp("nginx")
    make_site(base / "www" / "site")
    page = real_page()
    with nginx(program, base, page.parent if page is not None else base / "www" / "site") as server:
        yield server


@pytest.fixture(scope="session")
def front(www: Nginx) -> Iterator[Edge]:
    """The edge in front of it."""
    with edge_process(www.url) as edge:
        yield edge
