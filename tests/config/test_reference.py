import re
from pathlib import Path

import pytest
import yaml

from edgecache.config.coordinator import CoordinatorFile
from edgecache.config.load import load
from edgecache.config.load_coordinator import is_coordinator, load_coordinator
from edgecache.config.load_geodns import is_geodns
from edgecache.config.model import Config
from edgecache.config.options import options
from edgecache.config.reference import page

ROOT = Path(__file__).parents[2]
EXAMPLES = [path for path in sorted((ROOT / "config").glob("*.yaml")) if not is_geodns(path)]


def test_the_page_is_up_to_date() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == page(), "run: python -m edgecache.config.reference docs/configuration.md"


def test_the_page_names_every_option() -> None:
    text = page()
    rows = set(re.findall(r"`(EDGECACHE_[A-Z_]+)` \|$", text, re.MULTILINE))
    listed = {option.variable for root in (Config, CoordinatorFile) for option in options(root)}
    assert rows == listed


def test_there_are_examples() -> None:
    assert {path.name for path in EXAMPLES} >= {"minimal.yaml", "site.yaml"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_valid_and_say_something(path: Path) -> None:
    if is_coordinator(path):
        load_coordinator(path)
    else:
        assert load(path).config.sites
    assert yaml.safe_load(path.read_text(encoding="utf-8"))
