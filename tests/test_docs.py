"""Every example in the docs runs: the README's blocks, and the docstrings'."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
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


def test_readme_has_its_blocks():
    assert len(BLOCKS) == 4
    assert all(len([line for line in block.splitlines() if line.strip()]) <= 14 for block in BLOCKS[:2])


@pytest.mark.parametrize("name", DOCTESTS)
def test_docstrings(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0
