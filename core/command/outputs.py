"""Files that commands write. Whether they can be written is checked before the work, and not after it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import raremem
from raremem.command.signals import WRITING
from raremem.files import replace_file


def check_out(folder: Path, names: Iterable[str] = (), option: str = "--out") -> None:
    """Check that files of these names can be written into a folder, which may not exist yet. Leaves nothing there.

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
        raise raremem.ConfigError(f"{option} {folder} cannot be written to ({why}); name a folder that can be.") from error
    if taken:
        raise raremem.ConfigError(f"{option} {folder} has a folder {taken[0]} where a file is to be written; name another.")


def check_file(path: Path, option: str) -> None:
    """Check that a file can be written in an existing folder. Leaves an existing file as it is.

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
        raise raremem.ConfigError(f"{option} {path} cannot be written ({error.strerror}); name a file that can be.") from error
    if path.is_dir() or not os.access(path, os.W_OK):
        raise raremem.ConfigError(f"{option} {path} cannot be written; name a file that can be.")
    if path.is_file():  # its folder is where the new one is written first
        check_out(Path(os.path.realpath(path)).parent, (), option)


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all; text is encoded as UTF-8. Creates the folder. A signal takes effect after the write."""
    with WRITING:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content.encode("utf-8", "replace") if isinstance(content, str) else content)
