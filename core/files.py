"""A file that changes whole or not at all, and stays what it was to others: its mode, owner, attributes and links.

The content is written to a file that has no name yet, where the system can make one (Linux: ext4, XFS, Btrfs, tmpfs): when its
writer is killed, nothing of it is left. Elsewhere, and for the moment before the name is taken, it is a hidden file in the same
folder, which its writer holds locked. Every save into a folder removes those there that nobody holds, so none stays for good.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl

TEMPORARY = re.compile(r"\.raremem-[0-9a-f]{16}")
"""What a file is called while it is written: short, so that a name may be as long as the file system takes."""


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in one step: whoever reads it, at any time and after any crash, finds the older content or the newer.

    A file that was there keeps its mode, its group, owner, ACL and extended attributes, as far as the system lets this process
    give them (a group that it may not give gets no more than everyone has). A symbolic link stays one: the file that it leads
    to is replaced. Other hard links of the older file keep the older content, whole. A FIFO or a character device is written to
    as it is: /dev/stdout and /dev/null are expected to work, nothing is stored there that could be lost, and a FIFO waits for
    its reader. Anything else that is no file is refused. A new file has the mode that the umask says.

    Raises:
        OSError: it cannot be written, and the older content is as it was; or the newer is in its place, but the disk did not
            confirm the folder's entry.
    """
    try:
        older = _found(path)
        if older is None or stat.S_ISREG(older.st_mode):
            _replace(Path(os.path.realpath(path)), older, content)
        elif stat.S_ISFIFO(older.st_mode) or stat.S_ISCHR(older.st_mode):
            with open(os.open(path, os.O_WRONLY), "wb") as stream:
                stream.write(content)
        else:
            code = errno.EISDIR if stat.S_ISDIR(older.st_mode) else errno.EINVAL
            raise OSError(code, "This is no file; expected the name of a file, or one that is free", str(path))
    except OSError as error:
        of_ours = error.filename is None or isinstance(error.filename, int) or TEMPORARY.fullmatch(Path(error.filename).name)
        if error.errno is None or not of_ours:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _found(path: Path) -> os.stat_result | None:
    """What a name leads to, through all links; None if that is not there yet."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _replace(target: Path, older: os.stat_result | None, content: bytes, unnamed: bool = True) -> None:
    _remove_abandoned(target.parent)
    temporary, file = _opened(target.parent, 0o666 if older is None else 0o600, unnamed)
    try:
        with file:
            if older is not None:
                _keep(target, older, file.fileno())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if unnamed and not _has_name(file.fileno(), temporary):
                return _replace(target, older, content, unnamed=False)
            if sys.platform == "win32":
                file.close()  # there, a file that is open takes no other name; elsewhere the lock is held until it has
            os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(target.parent)


def _opened(folder: Path, mode: int, unnamed: bool) -> tuple[Path, BinaryIO]:
    """A new file that this process holds locked, and the name that it has or is to have."""
    while True:
        temporary = folder / f".raremem-{secrets.token_hex(8)}"
        descriptor = None
        if unnamed and sys.platform == "linux":
            with suppress(OSError):
                descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY, mode)
        named = descriptor is None
        if descriptor is None:
            descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), mode)
        if sys.platform != "win32":
            with suppress(OSError):  # a file system without locks: then nobody removes the file, either
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not named or os.fstat(descriptor).st_nlink:
            return temporary, open(descriptor, "wb")
        os.close(descriptor)  # it was removed as abandoned, before it was locked


def _has_name(descriptor: int, temporary: Path) -> bool:
    """Whether the file has its name by now: one that was made without is given it."""
    if os.fstat(descriptor).st_nlink == 0:
        try:  # by way of a folder's descriptor, which an absolute path leaves unused: only then is the link in /proc followed
            os.link(f"/proc/self/fd/{descriptor}", temporary, src_dir_fd=descriptor)
        except OSError:
            return False
    return True


def _keep(target: Path, older: os.stat_result, descriptor: int) -> None:
    """Make the new file what the older is to others, before anything is in it."""
    if sys.platform == "win32":
        return
    mode, made = stat.S_IMODE(older.st_mode), os.fstat(descriptor)
    if (made.st_uid, made.st_gid) != (older.st_uid, older.st_gid):
        with suppress(PermissionError):
            os.fchown(descriptor, -1, older.st_gid)
        with suppress(PermissionError):
            os.fchown(descriptor, older.st_uid, -1)
        if os.fstat(descriptor).st_gid != older.st_gid:
            mode &= ~0o070 | (mode & 0o007) << 3
    if sys.platform == "linux":
        _keep_attributes(target, descriptor)
    os.fchmod(descriptor, mode)


def _keep_attributes(target: Path, descriptor: int) -> None:
    """Extended attributes, of which an ACL is one; those that came from the folder's defaults go."""
    if sys.platform != "linux":
        return
    names: set[str] = set()
    with suppress(OSError):  # a file system without attributes
        names = set(os.listxattr(target))
        for name in set(os.listxattr(descriptor)) - names:
            with suppress(OSError):
                os.removexattr(descriptor, name)
    for name in names:
        with suppress(PermissionError, FileNotFoundError):  # one that only the system gives
            os.setxattr(descriptor, name, os.getxattr(target, name))


def _remove_abandoned(folder: Path) -> None:
    """Remove what writers that were killed have left here. A living one holds a lock on its file."""
    if sys.platform == "win32":
        return
    with suppress(OSError):  # a folder that may not be listed
        for name in filter(TEMPORARY.fullmatch, os.listdir(folder)):
            with suppress(OSError):  # held by its writer, removed by another save, or another user's
                descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    os.unlink(folder / name)
                finally:
                    os.close(descriptor)


def _sync(folder: Path) -> None:
    """Force a folder's entries to disk."""
    if sys.platform == "win32":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder that may be written to and not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that does so by itself
            raise
    finally:
        os.close(descriptor)
