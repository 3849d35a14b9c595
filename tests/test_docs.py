"""The docs say what is so: every example runs, every page is current, and the site builds without a warning."""

import contextlib
import dataclasses
import doctest
import importlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import raremem

ROOT = Path(__file__).parents[1]


def blocks(path):
    """Python blocks, each with what the block of text right after it says that it prints, or None."""
    found = re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", (ROOT / path).read_text(), re.DOTALL | re.MULTILINE)
    return [(code, printed or None) for code, printed in found]


def run(code, name, printed):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, name, "exec"), {"__name__": "page"})
    assert printed is None or said.getvalue() == printed


BLOCKS = blocks("README.md")
PAGES = [(page.name, place) for page in sorted((ROOT / "docs").glob("*.md")) for place in range(len(blocks(page)))]
DOCTESTS = (
    "raremem",
    "raremem.config",
    "raremem.registry",
    "raremem.adapters.torch.memory",
    "raremem.adapters.jax",
    "raremem.adapters.jax.flax",
    "raremem.adapters.sklearn.classifier",
)


@pytest.mark.parametrize(("code", "printed"), BLOCKS, ids=lambda block: str(block).splitlines()[0][:30])
def test_readme_block(code, printed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(code, "README.md", printed)


@pytest.mark.parametrize(("page", "place"), PAGES)
def test_block_of_a_page(page, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, printed = blocks(f"docs/{page}")[place]
    if "from transformers import" in code:
        pytest.importorskip("transformers")
    run(code, page, printed)


def test_pages_have_their_blocks():
    assert ("your-network.md", 1) in PAGES
    assert ("your-decoder.md", 1) in PAGES


def test_readme_has_its_blocks():
    assert len(BLOCKS) == 3
    assert BLOCKS[0][1]
    assert all(len([line for line in code.splitlines() if line.strip()]) <= 14 for code, _ in BLOCKS)


def test_what_a_block_prints_is_compared():
    with pytest.raises(AssertionError):
        run("print(1)", "page", "2\n")


@pytest.mark.parametrize("name", DOCTESTS)
def test_docstrings(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize(
    "kind", [raremem.MemoryConfig, raremem.Lookup, raremem.UpdateReport, raremem.ForgetReport, raremem.MemoryState]
)
def test_every_field_is_on_its_page(kind):
    """In the order of the fields, with their defaults."""
    section = (ROOT / "docs" / "fields.md").read_text().partition(f"## `{kind.__name__}`")[2].partition("\n## ")[0]
    rows = [[cell.strip(" `") for cell in row.split(" | ")] for row in re.findall(r"^\| (`.*)$", section, re.MULTILINE)]
    if dataclasses.is_dataclass(kind):
        fields = {field.name: field.default for field in dataclasses.fields(kind)}
    else:
        fields = {name: kind._field_defaults.get(name, dataclasses.MISSING) for name in kind._fields}
    assert [row[0] for row in rows] == list(fields)
    for row, default in zip(rows, fields.values(), strict=True):
        if default is not dataclasses.MISSING:
            assert repr(default).replace("'", '"') == row[2], row[0]


def test_every_public_name_is_in_the_reference():
    page = (ROOT / "docs" / "api.md").read_text()
    named = set(re.findall(r"^::: raremem\.(\w+)$", page, re.MULTILINE))
    assert named == set(raremem.__all__) - {"__version__"}


def build(folder, out):
    """Build the site of a checkout, in a process of its own; warnings are errors."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    there = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "NO_COLOR": "1"}
    return subprocess.run(command, cwd=folder, env=there, capture_output=True, text=True)


def checkout(folder):
    """A copy of what the site is made of."""
    for name in ("core", "adapters", "reference", "benchmarks", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "CHANGELOG.md", "mkdocs.yml"):
        shutil.copy(ROOT / name, folder)
    return folder


def test_the_site_builds(tmp_path):
    built = build(checkout(tmp_path / "checkout"), tmp_path / "site")
    assert built.returncode == 0, built.stderr
    assert "raremem.adapters.torch.Memory.forward" in (tmp_path / "site" / "api-adapters.html").read_text()
    assert "id=first-use" in (tmp_path / "site" / "index.html").read_text().replace('"', "")


def test_the_site_refuses_what_is_wrong(tmp_path):
    """Dead links, and public names that nothing describes."""
    folder = checkout(tmp_path / "checkout")
    page, config, errors = folder / "docs" / "large-memories.md", folder / "core" / "config.py", folder / "core" / "errors.py"
    page.write_text(page.read_text() + "\n[a page](no-such-page.md), [a place](benchmarks.md#no-such-place)\n")
    readme = folder / "README.md"
    readme.write_text(readme.read_text() + "\n[from the README](docs/nor-this-one.md)\n")
    config.write_text(
        config.read_text().replace(
            "    @property\n    def k(", "    def undocumented(self) -> None: ...\n\n    @property\n    def k("
        )
    )
    errors.write_text(errors.read_text().replace('    """A target is outside [0, 2**31 - 1]."""', "    pass"))
    built = build(folder, tmp_path / "site")
    assert built.returncode != 0
    for wrong in (
        "no-such-page.md",
        "no-such-place",
        "nor-this-one.md",
        "raremem.MemoryConfig.undocumented is public and has no docstring",
        "raremem.TargetError is public and has no docstring",
    ):
        assert wrong in built.stderr, wrong
