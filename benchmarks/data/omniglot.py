"""Reads Omniglot from its official files, as images [class, example, 28, 28] f32, ink 1 on paper 0."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.lib.format import read_array, read_array_header_1_0, read_array_header_2_0, read_magic
from numpy.typing import NDArray

from raremem.benchmarks.data.characters import SIZE, Characters, Images
from raremem.benchmarks.data.errors import DataError
from raremem.benchmarks.packages import need
from raremem.errors import RarememError

CLASSES, EXAMPLES, PIXELS = 1623, 20, 105
"""Omniglot's: characters in all, drawings of each, and their width and height."""
MOST_BYTES = 100_000
"""Of an official image, which has a few hundred."""
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
"""What every PNG begins with, before its width and height."""
LITTER = ("__macosx", "icon\r", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "@eadir")
"""What operating systems leave in folders and zips, beside what begins with a dot."""


def load_omniglot(path: str | Path) -> Characters:
    """Omniglot (Lake, Salakhutdinov and Tenenbaum, Science 2015) from a folder: background to train, evaluation to test.

    Args:
        path: a folder with `images_background` and `images_evaluation`, each as the official .zip, as the folder that was in
            it, or as an .npz with `images` bool [class, 20, 105, 105], True for paper; or a folder with such a folder
            `omniglot` in it.

    Raises:
        DataError: the files are not there, or are not Omniglot; the message names the file, the member of a zip, or the image.
        MissingPackageError: Pillow, which reads images, is not installed.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"--data {folder} is no folder; expected one with Omniglot's images_background.zip or .npz in it.")
    if (folder / "omniglot").is_dir():
        folder = folder / "omniglot"
    return Characters("Omniglot", _load_part(folder, "images_background"), _load_part(folder, "images_evaluation"))


def _load_part(folder: Path, part: str) -> Images:
    readers = {folder / f"{part}.npz": _read_npz, folder / f"{part}.zip": _read_zip, folder / part: _read_folder}
    path = next((path for path in readers if path.exists()), None)
    if path is None:
        raise DataError(
            f"{folder} has neither {part}.npz nor {part}.zip nor a folder {part}; expected Omniglot's official files."
        )
    with _named(str(path)):
        paper = readers[path](path)
    ink = 1 - paper.mean(axis=(2, 3), dtype=np.float32)
    for wrong, why in ((ink == 0, "has no ink"), (ink > 0.5, "has more ink than paper: True (white) is to be paper")):
        if wrong.any():
            number, example = np.argwhere(wrong)[0]
            raise DataError(f"{path}: image {example} of class {number} {why}. Expected Omniglot's images as they are.")
    return np.stack([_shrink(1 - character.astype(np.float32)) for character in paper])


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Turn any error of reading into a DataError that names the file: readers of damaged files raise all kinds."""
    try:
        yield
    except RarememError:
        raise
    except Exception as error:
        raise DataError(
            f"{name} cannot be read ({error or type(error).__name__}); expected Omniglot. Fetch it again."
        ) from error


def _read_npz(path: Path) -> NDArray[np.bool_]:
    """The array `images`; its shape and dtype are checked before it is read."""
    with zipfile.ZipFile(path) as archive:
        with archive.open("images.npy") as file:
            read_header = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}[read_magic(file)]
            shape, _, dtype = read_header(file)
        if len(shape) != 4 or shape[1:] != (EXAMPLES, PIXELS, PIXELS) or not 0 < shape[0] <= CLASSES:
            raise DataError(f"{path} has images of shape {shape}; expected [1 to {CLASSES}, {EXAMPLES}, {PIXELS}, {PIXELS}].")
        if dtype != np.bool_:
            raise DataError(f"{path} has images of {dtype}; expected bool, True for paper.")
        with archive.open("images.npy") as file:
            return read_array(file)


def _read_zip(path: Path) -> NDArray[np.bool_]:
    """The PNGs of an official zip."""
    with zipfile.ZipFile(path) as archive:
        members = {}
        for info in archive.infolist():
            name = f"{path}: {info.filename!r}"
            if info.filename.endswith(("/", "\\")) or _is_litter(info.filename):
                continue
            if info.filename in members:
                raise DataError(f"{name} is there twice; expected Omniglot. Fetch it again.")
            if info.flag_bits & 1:
                raise DataError(f"{name} is encrypted; expected Omniglot, without a password.")
            members[info.filename] = _Member(name, info.file_size, partial(archive.read, info))
        return _read_images(str(path), members)


def _read_folder(path: Path) -> NDArray[np.bool_]:
    """The PNGs of an official zip that was extracted."""
    members = {}
    for folder, _, names in os.walk(path, onerror=_raise, followlinks=True):
        for file in (Path(folder, name) for name in names):
            key = file.relative_to(path).as_posix()
            if not _is_litter(key):
                if not file.is_file():
                    raise DataError(f"{file} is no file; expected an image of Omniglot.")
                members[key] = _Member(str(file), file.stat().st_size, file.read_bytes)
    return _read_images(str(path), members)


def _raise(error: OSError) -> None:
    raise error


class _Member(NamedTuple):
    """A file in a zip or a folder."""

    name: str
    """For errors."""
    size: int
    read: Callable[[], bytes]


def _is_litter(name: str) -> bool:
    """Whether this is a file that operating systems leave in folders."""
    return any(
        (part.startswith(".") and part != "..") or part.lower() in LITTER
        for part in PurePosixPath(name.replace("\\", "/")).parts
    )


def _read_images(where: str, members: dict[str, _Member]) -> NDArray[np.bool_]:
    """Images sorted by alphabet, character and drawer; each folder is a class."""
    classes: dict[str, list[NDArray[np.bool_]]] = {}
    for key, member in sorted(members.items()):
        place = PurePosixPath(key.replace("\\", "/"))
        if place.suffix.lower() != ".png" or place.is_absolute() or ".." in place.parts or len(place.parts) < 2:
            raise DataError(f"{member.name} is none of Omniglot's; expected alphabet/character/image.png and nothing else.")
        classes.setdefault(str(place.parent), []).append(_read_png(member))
        if len(classes) > CLASSES:
            raise DataError(f"{where} has more than {CLASSES} characters; expected Omniglot.")
    for name, images in classes.items():
        if len(images) != EXAMPLES:
            raise DataError(f"{where}: {name!r} has {len(images)} images; expected {EXAMPLES} of each character.")
    if not classes:
        raise DataError(f"{where} has no images; expected Omniglot.")
    return np.array(list(classes.values()))


def _read_png(member: _Member) -> NDArray[np.bool_]:
    """A black and white image [105, 105]; its size is checked before it is decoded."""
    need("reading Omniglot's images", "PIL")
    from PIL import Image

    if member.size > MOST_BYTES:
        raise DataError(f"{member.name} has {member.size:,} bytes; expected an image of Omniglot, {MOST_BYTES:,} at most.")
    with _named(member.name):
        content = member.read()
        if content[:16] != PNG:
            raise ValueError("it is no PNG")
        width, height = struct.unpack(">II", content[16:24])
        if (width, height) != (PIXELS, PIXELS):
            raise ValueError(f"{width} x {height} pixels instead of {PIXELS} x {PIXELS}")
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            pixels = np.asarray(image.convert("L"))
        if not np.isin(pixels, (0, 255)).all():
            raise ValueError("it is not in black and white")
    return pixels > 0


def _shrink(ink: Images) -> Images:
    """[..., n, n] to [..., 28, 28] by area, thin lines kept dark."""
    weights = np.zeros((SIZE, ink.shape[-1]), np.float32)
    edges = np.linspace(0, ink.shape[-1], SIZE + 1)
    for row in range(SIZE):
        pixels = np.arange(ink.shape[-1])
        weights[row] = np.clip(np.minimum(edges[row + 1], pixels + 1) - np.maximum(edges[row], pixels), 0, 1)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.minimum(2 * (weights @ ink @ weights.T), 1, dtype=np.float32)
