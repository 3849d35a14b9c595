"""Files that commands read and write: lines of text, and the folder for results, tried before the work and not after it."""

from __future__ import annotations

import gzip
import os
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import raremem
from raremem.benchmarks.characters import DataError
from raremem.benchmarks.signals import WRITING
from raremem.files import replace_file

MOST_TEXT = 2**28
"""Bytes of text that a file may hold, unpacked: a hundred times Multi30k."""
MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
"""What a text begins with, and how it is then encoded; a text without a mark is UTF-8."""


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a text, or of a .gz of one. A line ends at a line feed, or at a carriage return and a line feed, and nowhere
    else: whatever other separators Unicode has, they are part of a sentence.

    Args:
        path: the file: UTF-8, or UTF-16 or UTF-32 with its mark.
        what: what was expected, for the error.

    Raises:
        DataError: there is no such file, it cannot be read or decoded, holds no text, or more than `MOST_TEXT`.
    """
    try:
        content = _content(path)
        if len(content) > MOST_TEXT:
            raise ValueError(f"more than {MOST_TEXT // 2**20} MiB of text")
        encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
        text = content.decode(encoding)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read ({why}); expected {what}, in UTF-8.") from error
    if "\0" in text:
        raise DataError(f"{path} holds zero bytes; expected {what}, in UTF-8, or in UTF-16 with its byte order mark.")
    if not text.strip():
        raise DataError(f"{path} is empty; expected {what}.")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def _content(path: Path) -> bytes:
    """All of it, unpacked; of too much, just enough to tell."""
    if path.exists() and not path.is_file():
        raise OSError("it is no file")
    if path.suffix == ".gz":
        with gzip.open(path) as file:
            return file.read(MOST_TEXT + 1)
    with path.open("rb") as file:
        return file.read(MOST_TEXT + 1)


def check_out(folder: Path, names: Iterable[str] = (), option: str = "--out") -> None:
    """Check that files of these names can be written into a folder, which is made later if need be. Leaves nothing there.

    Raises:
        ConfigError: they cannot.
    """
    names = tuple(names)
    try:
        taken = [name for name in names if (folder / name).is_dir()]
        nearest = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
        if not nearest.is_dir():
            raise NotADirectoryError(f"{nearest} is no folder")
        with WRITING, tempfile.TemporaryDirectory(prefix=".raremem", dir=nearest) as trial:
            for name in (*folder.relative_to(nearest).parts, *names):
                Path(trial, name).touch()
    except OSError as error:
        why = error.strerror or error
        raise raremem.ConfigError(f"{option} {folder} cannot be written to ({why}); name a folder that can.") from error
    if taken:
        raise raremem.ConfigError(f"{option} {folder} has a folder {taken[0]} where a file is to be written; name another.")


def check_file(path: Path, option: str) -> None:
    """Check that a file can be written in a folder that is there; leaves it as it is.

    Raises:
        ConfigError: it cannot.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        if path.parent.is_dir():
            return check_out(path.parent, [path.name], option)
        raise raremem.ConfigError(f"{option} {path}: there is no folder {path.parent}; make it first.") from None
    except OSError as error:
        raise raremem.ConfigError(f"{option} {path} cannot be written ({error.strerror}); name a file that can.") from error
    if path.is_dir() or not os.access(path, os.W_OK):
        raise raremem.ConfigError(f"{option} {path} cannot be written; name a file that can.")


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all, text as UTF-8, in a folder that is made if need be; a signal waits until it is done."""
    with WRITING:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content.encode("utf-8", "replace") if isinstance(content, str) else content)
