"""Handwritten characters: Omniglot, or characters drawn here, of as many classes as one asks for.

Images are [class, example, 28, 28] f32, ink 1 on paper 0.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raremem.errors import MissingPackageError, RarememError

SIZE = 28
Images = NDArray[np.float32]


class DataError(RarememError, ValueError):
    """A data set is not where it was said to be, or is not what it should be."""


@dataclass(frozen=True)
class Characters:
    """Classes to train on, and classes never trained on."""

    name: str
    train: Images
    test: Images


def load_omniglot(path: str | Path) -> Characters:
    """Omniglot (Lake, Salakhutdinov and Tenenbaum, Science 2015) from a folder: background to train, evaluation to test.

    Args:
        path: a folder with `images_background` and `images_evaluation`, each as the official .zip or as an .npz with
            `images` bool [class, 20, 105, 105], True for paper; or a folder with such a folder `omniglot` in it.

    Raises:
        DataError: the files are not there, or are not Omniglot.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"--data {folder} is no folder; expected one with Omniglot's images_background.zip or .npz in it.")
    if (folder / "omniglot").is_dir():
        folder = folder / "omniglot"
    return Characters("Omniglot", _load_part(folder, "images_background"), _load_part(folder, "images_evaluation"))


def _load_part(folder: Path, part: str) -> Images:
    try:
        if (folder / f"{part}.npz").is_file():
            paper = np.load(folder / f"{part}.npz", allow_pickle=False)["images"]
        elif (folder / f"{part}.zip").is_file():
            paper = _read_zip(folder / f"{part}.zip")
        else:
            raise DataError(f"{folder} has neither {part}.npz nor {part}.zip; expected one of Omniglot's official files.")
    except (KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{folder / part} cannot be read ({error}); expected Omniglot. Fetch it again.") from error
    if paper.ndim != 4 or paper.shape[1:] != (20, 105, 105):
        raise DataError(f"{folder / part} has images of shape {paper.shape}; expected [class, 20, 105, 105].")
    return _shrink(1 - paper.astype(np.float32))


def _read_zip(path: Path) -> NDArray[np.bool_]:
    """The PNGs of an official zip, by alphabet, character and drawer."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackageError("reading Omniglot's zips needs Pillow: pip install 'raremem[bench]'") from error
    classes: dict[str, list[NDArray[np.bool_]]] = {}
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".png") and "__MACOSX" not in name:
                with Image.open(io.BytesIO(archive.read(name))) as image:
                    classes.setdefault(name.rpartition("/")[0], []).append(np.array(image, np.bool_))
    return np.array(list(classes.values()))


def _shrink(ink: Images) -> Images:
    """[..., n, n] to [..., 28, 28] by area, thin lines kept dark."""
    weights = np.zeros((SIZE, ink.shape[-1]), np.float32)
    edges = np.linspace(0, ink.shape[-1], SIZE + 1)
    for row in range(SIZE):
        pixels = np.arange(ink.shape[-1])
        weights[row] = np.clip(np.minimum(edges[row + 1], pixels + 1) - np.maximum(edges[row], pixels), 0, 1)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.minimum(2 * (weights @ ink @ weights.T), 1, dtype=np.float32)


def draw_characters(seed: int, train: int, test: int, examples: int = 20) -> Characters:
    """Characters of our own: `train` and `test` classes, `examples` drawings of each."""
    generator = np.random.default_rng(seed)
    images = np.concatenate([draw_class(generator, examples) for _ in range(train + test)])
    images = images.reshape(train + test, examples, SIZE, SIZE)
    return Characters("drawn", images[:train], images[train:])


def draw_class(generator: np.random.Generator, examples: int) -> Images:
    """One new character, drawn `examples` times [examples, 28, 28].

    A character is two or three strokes, each a smooth curve through three or four points. Every drawing moves the points, the
    strokes and the whole (shift, turn, scale, slant, as a hand does), and takes a pen of another width.
    """
    curves = []
    for _ in range(generator.integers(2, 4)):
        points = generator.uniform(-1, 1, (generator.integers(3, 5), 2))
        moved = points + 0.05 * generator.normal(size=(examples, *points.shape))
        moved += 0.04 * generator.normal(size=(examples, 1, 2))
        curves.append(_smooth(moved))
    strokes = np.concatenate(curves, axis=1)
    turn, slant = generator.normal(0, 0.2, examples), generator.normal(0, 0.15, examples)
    wide, high = generator.normal(1, 0.12, (2, examples))
    cos, sin = np.cos(turn), np.sin(turn)
    transform = np.stack([wide * cos, high * (slant * cos - sin), wide * sin, high * (slant * sin + cos)], axis=1)
    placed = strokes @ transform.reshape(-1, 2, 2).swapaxes(1, 2) + generator.normal(0, 0.14, (examples, 1, 2))
    return _ink(placed, width=generator.uniform(0.4, 0.7, examples))


def _smooth(points: NDArray[np.float64], steps: int = 16) -> NDArray[np.float64]:
    """A Catmull-Rom curve through [examples, n, 2] points, `steps` places for each piece."""
    padded = np.concatenate([points[:, :1], points, points[:, -1:]], axis=1)
    before, start, end, after = (padded[:, place : place + points.shape[1] - 1, None] for place in range(4))
    t = np.linspace(0, 1, steps)[:, None]
    curve = 0.5 * (
        2 * start + (end - before) * t + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    )  # fmt: skip
    return curve.reshape(len(points), -1, 2)


def _ink(strokes: NDArray[np.float64], width: NDArray[np.float64]) -> Images:
    """Pictures [examples, 28, 28] of points [examples, n, 2] in about [-1, 1], drawn with a pen `width` pixels wide."""
    pixels = np.arange(SIZE)
    places = SIZE / 2 - 0.5 + strokes * (SIZE * 0.36)
    near = np.exp(-(((places[..., None] - pixels) / width[:, None, None, None]) ** 2) / 2)
    dark = 0.7 * np.matmul(near[:, :, 1].swapaxes(1, 2), near[:, :, 0])
    return np.minimum(dark, 1).astype(np.float32)
