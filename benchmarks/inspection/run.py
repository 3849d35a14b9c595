"""`raremem inspect` from beginning to end."""

from __future__ import annotations

from pathlib import Path

from raremem.benchmarks.inspection.content import Content, read, with_payload
from raremem.benchmarks.inspection.figures import Figures, figures
from raremem.benchmarks.inspection.page import as_html
from raremem.benchmarks.inspection.text import summary
from raremem.benchmarks.packages import need
from raremem.command.outputs import check_file, write_file
from raremem.errors import ConfigError


def run_inspection(
    file: Path, out: Path | None = None, payload: Path | None = None, name: str | None = None
) -> tuple[Content, Figures | None]:
    """Print what is in a memory's file, and write a page of it.

    Args:
        file: the file, or a model's folder.
        out: the page's file; None: print only.
        payload: see `content.with_payload`.
        name: which memory, where a model has several.

    Returns:
        What was read, and the figures; None where nothing is stored.

    Raises:
        ConfigError: `out` cannot be written, or is one of the files to be read; or as `content.read`.
        MissingPackageError: the page is asked for, and jinja2 is not installed; or as `content.read`.
        CheckpointError, DataError, OSError: see `content`.
    """
    if out is not None:
        _check_out(out, file, payload)
        need("the report", "jinja2")
    content = read(file, name)
    if payload is not None:
        content = with_payload(content, payload)
    found = figures(content) if content.portable["filled"].any() else None
    title = file.name or file.resolve().name
    if out is not None:
        write_file(out, as_html(title, content, found))
    print(summary(title, content, found))
    if out is not None:
        print(f"\n{out} written")
    return content, found


def _check_out(out: Path, *read: Path | None) -> None:
    """Check that the page can be written, and over none of the files that are read."""
    check_file(out, "--out")
    for file in read:
        if file is not None and file.exists() and out.exists() and out.samefile(file):
            raise ConfigError(f"--out {out} is {file}, which is to be read; name another file.")
