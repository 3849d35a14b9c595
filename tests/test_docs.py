"""Every example in the docs runs: the README's blocks, and the docstrings'."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def blocks(path):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / path).read_text(), re.DOTALL | re.MULTILINE)


BLOCKS = blocks("README.md")
PAGES = [(page.name, place) for page in sorted((ROOT / "docs").glob("*.md")) for place in range(len(blocks(page)))]
DOCTESTS = (
    "raremem",
    "raremem.config",
    "raremem.registry",
    "raremem.adapters.torch",
    "raremem.adapters.jax",
    "raremem.adapters.flax",
)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0][:30])
def test_readme_block(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize(("page", "place"), PAGES)
def test_block_of_a_page(page, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks(f"docs/{page}")[place], page, "exec"), {"__name__": "page"})


def test_pages_have_their_blocks():
    assert ("your-network.md", 1) in PAGES


def test_readme_has_its_blocks():
    assert len(BLOCKS) == 4
    assert all(len([line for line in block.splitlines() if line.strip()]) <= 14 for block in BLOCKS[:2])


@pytest.mark.parametrize("name", DOCTESTS)
def test_docstrings(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0
