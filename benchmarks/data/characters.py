"""Characters drawn at random, like handwritten ones, of any number of classes.

Images are [class, example, 28, 28] f32, ink 1 on paper 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.data.errors import DataError

SIZE = 28
Images = NDArray[np.float32]


@dataclass(frozen=True)
class Characters:
    """Classes to train on, and classes never trained on."""

    name: str
    train: Images
    test: Images


def need_classes(characters: Characters, train: int, test: int) -> None:
    """Check that there are as many classes as a task takes.

    Raises:
        DataError: there are fewer.
    """
    for part, images, least in (("train", characters.train, train), ("test", characters.test, test)):
        if len(images) < least:
            raise DataError(f"{characters.name} has {len(images)} classes to {part} on; expected {least} at least.")


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
