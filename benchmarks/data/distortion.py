"""Random affine distortions of characters."""

from __future__ import annotations

import numpy as np

from raremem.benchmarks.data.characters import SIZE, Images
from raremem.benchmarks.packages import need


def distort(generator: np.random.Generator, images: Images, strength: float = 1.0) -> Images:
    """Images [n, 28, 28], each turned (by 10 degrees or so), scaled, slanted and shifted in its own way.

    Raises:
        MissingPackageError: scipy is not installed.
    """
    need("distorting characters", "scipy")
    from scipy.ndimage import affine_transform

    count, middle = len(images), np.full((2, 1), (SIZE - 1) / 2)
    matrix = np.eye(2) + generator.normal(0, 0.12 * strength, (count, 2, 2))
    turn = generator.normal(0, 0.2 * strength, count)
    matrix = matrix @ np.stack([np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)], axis=1).reshape(-1, 2, 2)
    shift = generator.normal(0, strength, (count, 2, 1)) + middle - matrix @ middle
    distorted = np.empty_like(images)
    for place, image in enumerate(images):
        affine_transform(image, matrix[place], shift[place, :, 0], output=distorted[place], order=1, mode="grid-constant")
    return distorted
