"""Reads lines of text from a file, plain or gzipped, in UTF-8, UTF-16 or UTF-32."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from raremem.benchmarks.data.errors import DataError

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


def read_lines(path: Path, what: str, most: int = MOST_TEXT) -> list[str]:
    """The lines of a text, or of a .gz of one. A line ends at a line feed, or at a carriage return and a line feed, and nowhere
    else: whatever other separators Unicode has, they are part of a sentence.

    Args:
        path: the file: UTF-8, or UTF-16 or UTF-32 with its mark.
        what: what was expected, for the error.
        most: bytes of text, unpacked.

    Raises:
        DataError: there is no such file, it cannot be read or decoded, holds no text, or more than `most`.
    """
    try:
        content = _content(path, most)
        if len(content) > most:
            raise ValueError(f"more than {most / 2**20:g} MiB of text")
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


def _content(path: Path, most: int) -> bytes:
    """The unpacked content, up to one byte more than `most`."""
    if path.exists() and not path.is_file():
        raise OSError("it is no file")
    if path.suffix == ".gz":
        with gzip.open(path) as file:
            return file.read(most + 1)
    with path.open("rb") as file:
        return file.read(most + 1)
