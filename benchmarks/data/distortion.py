"""Random affine distortions of characters."""

from __future__ import annotations

import numpy as np

from raremem.benchmarks.data.characters import SIZE, Images


def distort(generator: np.random.Generator, images: Images, strength: float = 1.0) -> Images:
    """Images [n, 28, 28], each turned (by 10 degrees or so), scaled, slanted and shifted in its own way."""
    count = len(images)
    matrix = np.eye(2) + generator.normal(0, 0.12 * strength, (count, 2, 2))
    turn = generator.normal(0, 0.2 * strength, count)
    rotation = np.stack([np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)], axis=1).reshape(-1, 2, 2)
    grid = np.indices((SIZE, SIZE)).reshape(2, -1) - (SIZE - 1) / 2
    places = (matrix @ rotation) @ grid + generator.normal(0, strength, (count, 2, 1)) + (SIZE - 1) / 2
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2)))
    places = np.clip(places + 1, 0, SIZE + 1)
    low = places.astype(np.int32)
    part = (places - low).astype(np.float32)
    row, column = low[:, 0], low[:, 1]
    of_image = np.arange(count)[:, None]
    top = padded[of_image, row, column] * (1 - part[:, 1]) + padded[of_image, row, column + 1] * part[:, 1]
    bottom = padded[of_image, row + 1, column] * (1 - part[:, 1]) + padded[of_image, row + 1, column + 1] * part[:, 1]
    return (top * (1 - part[:, 0]) + bottom * part[:, 0]).reshape(images.shape)
