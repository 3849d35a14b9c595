"""A `MemoryClassifier` in a file: safetensors, with a checksum, and nothing executable."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors
import safetensors.numpy

from raremem.adapters.sklearn.learned_map import LearnedMap
from raremem.adapters.sklearn.store import ExampleStore
from raremem.adapters.sklearn.unknown import ConformalThreshold
from raremem.config import MemoryConfig, shown
from raremem.errors import CheckpointError, MissingPackageError
from raremem.files import replace_file
from raremem.registry import get_backend

SCHEMA = 3
"""1: the temperature was a parameter, and never chosen. 1 and 2: whether the memory grows, and what share of known rows may be
refused, were those of the parameters, which may have been set after `fit`."""
HEADER = "raremem-classifier"
"""The one entry of the file's metadata."""
MEMORY = ("keys", "values", "ages", "filled", "hits")

Classifier = TypeVar("Classifier")


def save(path: str | os.PathLike[str], classifier: Any) -> None:
    """Write a fitted classifier."""
    store, threshold = classifier._store, classifier._threshold
    portable = store.backend.to_numpy(store.state)
    arrays = {name: np.ascontiguousarray(portable[name]) for name in MEMORY}
    arrays |= {"step": np.asarray(portable["step"], np.int64), "ids": store.ids, "numbers": classifier._numbers}
    if threshold is not None:
        arrays["window"] = np.asarray(threshold.window, np.float64)
    if classifier.map_ is not None:
        arrays |= classifier.map_._asdict()
    parameters = {**classifier.get_params(), "backend": store.name}
    if not isinstance(parameters["random_state"], (int, np.integer, type(None))):
        parameters["random_state"] = None  # a generator has no form in a file
    header = {
        "schema": SCHEMA,
        "config": dataclasses.asdict(store.config),
        "parameters": parameters,
        "seen": store.seen,
        "grows": store.grows,
        "chosen_at": classifier._chosen_at,
        "classes": [classifier.classes_.dtype.str, classifier.classes_.tolist()],
        "features": [classifier.n_features_in_, *getattr(classifier, "feature_names_in_", np.zeros(0)).tolist()],
        "window": None if threshold is None else [threshold.window.maxlen, threshold.level, threshold.share],
    }
    try:
        text = json.dumps(header, sort_keys=True, default=_plain)
    except TypeError as error:
        raise ValueError(f"the labels or parameters have no form in JSON ({error}); expected strings or numbers.") from error
    content = safetensors.numpy.save(arrays, {HEADER: json.dumps([_checksum(text, arrays), text])})
    replace_file(Path(path), content)


def load(kind: type[Classifier], path: str | os.PathLike[str], backend: str | None) -> Classifier:
    """Read a classifier of that class."""
    if backend is not None:
        get_backend(backend)
    with open(path, "rb"):
        pass  # what the system refuses is its own error
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if list(metadata) == ["raremem"]:
                raise CheckpointError(
                    f"{path} was written by raremem.save or Memory.save; expected a file of MemoryClassifier.save. "
                    "Load it with raremem.load(path) or Memory.load(path)."
                )
            if list(metadata) != [HEADER]:
                raise ValueError(f"its metadata is {sorted(metadata)}, where {[HEADER]} is expected")
            checksum, text = json.loads(metadata[HEADER])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(text)
        if header["schema"] not in range(1, SCHEMA + 1):
            raise ValueError(f"its schema is {header['schema']}, where 1 to {SCHEMA} are expected")
        if checksum != _checksum(text, arrays):
            raise ValueError("its checksum does not match its content")
        return _restored(kind, header, arrays, backend)
    except (CheckpointError, MissingPackageError, OSError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path} is no whole file of MemoryClassifier.save ({reason}). Load an older copy.") from error


def _restored(kind: type[Classifier], header: dict[str, Any], arrays: dict[str, Any], backend: str | None) -> Classifier:
    parameters = header["parameters"] | ({} if backend is None else {"backend": backend})
    if backend is None and ":" in parameters["backend"]:  # to find it is to import, and so to run, what the file says
        raise ValueError(f"its backend is {shown(parameters['backend'])}, none of raremem's; expected load(path, backend=...)")
    classifier: Any = kind(**parameters)
    config = MemoryConfig(**header["config"])
    grows = header.get("grows", parameters["slots"] is None)
    store = ExampleStore(parameters["backend"], dataclasses.replace(config, slots=1), grows)
    store.config, store.ids, store.seen = config, arrays["ids"], header["seen"]
    portable = {**{name: arrays[name] for name in MEMORY}, "step": int(arrays["step"])}
    store.filled = int(portable["filled"].sum())
    store.state = store.backend.from_numpy(config, portable)
    classifier._store, classifier._numbers = store, arrays["numbers"]
    classifier.map_ = LearnedMap(arrays["weight"], arrays["bias"]) if "weight" in arrays else None
    classifier.temperature_ = config.softmax_temperature
    classifier._chosen_at = tuple(header.get("chosen_at", (0, 0)))
    classifier._threshold = None
    if header["window"] is not None:
        length, level, *share = header["window"]
        classifier._threshold = ConformalThreshold(*share or [parameters["unknown"]])
        classifier._threshold.replace(arrays["window"], length)
        classifier._threshold.level = level
    dtype, labels = header["classes"]
    classifier.classes_ = np.array(labels, np.dtype(dtype))
    classifier.n_features_in_, *names = header["features"]
    if names:
        classifier.feature_names_in_ = np.array(names, object)
    return classifier


def _plain(value: Any) -> Any:
    """A NumPy number as one that JSON has."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__} was given")


def _checksum(text: str, arrays: dict[str, Any]) -> str:
    return hashlib.sha256(text.encode() + safetensors.numpy.save(arrays)).hexdigest()
