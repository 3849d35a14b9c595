"""Hooks of mkdocs: pages from the top of the repository, the package as one tree, a check for docstrings, doctests as code."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
TREE = ROOT / "build" / "api" / "raremem"
"""The package as a wheel would have it, in links: the folders of the repository have other names."""
ROOMS = {"core": "", "adapters": "adapters", "reference": "reference", "benchmarks": "benchmarks"}
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}

log = logging.getLogger("mkdocs.raremem")
documented: set[str] = set()
"""What the pages of the API describe."""


def on_startup(command: str, dirty: bool) -> None:
    """Make the tree that mkdocstrings reads."""
    shutil.rmtree(TREE, ignore_errors=True)
    for room, below in ROOMS.items():
        for module in (ROOT / room).rglob("*.py"):
            link = TREE / below / module.relative_to(ROOT / room)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(module)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that lie at the top of the repository."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> None:
    """Note what a page describes."""
    documented.update(re.findall(r"^::: (\S+)", markdown, re.MULTILINE))


def on_post_build(config: MkDocsConfig) -> None:
    """Warn, which ends a strict build, of each public name that is described and has no docstring."""
    handler = config.plugins["mkdocstrings"].get_handler("python")
    for name in sorted(documented):
        for path in without_docstring(handler.collect(name, handler.get_options({}))):
            log.warning(f"{path} is public and has no docstring.")


def without_docstring(found: griffe.Object | griffe.Alias) -> Iterator[str]:
    """The paths of an object and its public members, inherited ones too, that nothing describes.

    An attribute may be described by its class, in a section "Attributes" or "Args"; any member, by the same member of a base.
    """
    if not found.has_docstring:
        yield found.path
    if found.is_class:
        bases = [found, *found.mro()]
        described = {name for base in bases for name in names_in(base)}
        for name, member in found.all_members.items():
            documented_bases = (base for base in bases if name in base.members and base.members[name].has_docstring)
            if not name.startswith("_") and name not in described and not any(documented_bases):
                yield member.path


def names_in(found: griffe.Object | griffe.Alias) -> Iterator[str]:
    """The attributes and parameters that a class's docstring lists."""
    for section in found.docstring.parse("google", warnings=False) if found.docstring else ():
        if section.kind in (griffe.DocstringSectionKind.attributes, griffe.DocstringSectionKind.parameters):
            yield from (name for item in section.value for name in item.name.split(", "))


class FencedDoctests(griffe.Extension):
    """Shows doctests as code: Markdown takes `>>>` for a quotation."""

    def on_instance(self, *, node: Any, obj: griffe.Object, agent: Any, **kwargs: Any) -> None:
        """Put a fence around each doctest of a docstring."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"(?m)^(>>> (?:.+\n?)+)", r"```pycon\n\1\n```", obj.docstring.value)
