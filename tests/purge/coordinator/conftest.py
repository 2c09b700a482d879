from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.purge.coordinator.kit import Running, World, memory_folder


@pytest.fixture
def world() -> Iterator[World]:
    with memory_folder() as name:
        yield World(Path(name, "data"))


@pytest.fixture
async def running(world: World) -> AsyncIterator[Running]:
    async with world.coordinator() as made:
        yield made
