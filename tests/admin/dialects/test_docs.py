"""The lines of docs/dialects.md, run as they stand there."""

import asyncio
import re
from pathlib import Path

import pytest

from edgecache.admin.dialects.build import fleet_desk
from edgecache.config.dialects import FleetDialectsConfig
from edgecache.config.units import Address
from edgecache.purge.coordinator.server import CoordinatorServer
from tests.conftest import require
from tests.edge.world import TOKEN, world
from tests.purge.coordinator import kit

PAGE = Path(__file__).parents[3] / "docs/dialects.md"
BLOCK = re.search(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
LINES = [line for line in (BLOCK[1] if BLOCK is not None else "").splitlines() if not line.startswith("#")]
SITE = "www.example.com"


def test_there_are_lines() -> None:
    assert len(LINES) >= 15


async def test_every_line_purges() -> None:
    require("curl")
    async with world() as here:
        here.answers(
            Cache_Control="max-age=600",
            Surrogate_Key="product-42",
            Cache_Tag="Product-42",
            X_Magento_Tags="cat_c_3",
        )
        for line in LINES:
            paths = ("/list/1",) if "/list/" in line else ("/list",)
            for path in paths:
                await here.get(path, Host=SITE)
                assert "hit" in (await here.get(path, Host=SITE)).cache_status
                await run(line, TOKEN, here.edge.admin.address.port)
                assert "hit" not in (await here.get(path, Host=SITE)).cache_status, line


async def test_every_line_purges_at_a_coordinator(tmp_path: Path) -> None:
    require("curl")
    config = FleetDialectsConfig.model_validate({"ids": [{"id": "shop", "site": "shop"}]})
    async with kit.World(tmp_path).coordinator() as made:
        server = CoordinatorServer(made.coordinator, Address("127.0.0.1", 0), desk=fleet_desk(config))
        await server.start()
        try:
            for number, line in enumerate(LINES, 1):
                await run(line, made.tokens["purge"], server.address.port)
                assert made.log.state().head == number, line
        finally:
            await server.close()


async def run(line: str, token: str, port: int) -> None:
    """As somebody types it. It has succeeded."""
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-ec",
        line.replace("curl ", "curl -sS "),
        env={"TOKEN": token, "ADMIN": f"http://127.0.0.1:{port}", "PATH": "/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, (line, said)


@pytest.mark.parametrize("word", ["allow", "ids", "patterns", "token", "speak"])
def test_the_page_names_every_key(word: str) -> None:
    assert word in PAGE.read_text(encoding="utf-8")
