"""What a file holds: a memory, and what is known of its values and slots. Read without PyTorch and JAX."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

import raremem
from raremem.backend import Backend
from raremem.benchmarks.data.errors import DataError
from raremem.benchmarks.data.text import read_lines
from raremem.benchmarks.inspection import models
from raremem.checkpoint import HEADER
from raremem.config import MemoryConfig
from raremem.errors import CheckpointError, ConfigError
from raremem.state import MemoryState, PortableState

CLASSIFIER = "raremem-classifier"
"""The one entry of the metadata of a classifier's file."""
EXPECTED = (
    "expected a file that raremem.save, Memory.save or MemoryClassifier.save wrote, or a model's safetensors file or folder "
    "with a raremem.adapters.torch.Memory in it"
)


@dataclass(frozen=True)
class Content:
    """A memory, and what its file says beside it.

    Attributes:
        kind: what wrote the file, with its schema, for people.
        config: of the memory.
        state: the memory, a state of the NumPy backend.
        portable: the same in portable form.
        labels: what each value stands for; a value that is not in it stands for itself.
        ids: [slots] i64, which example is in each slot: how many had come before it; -1: none. None: the file does not say.
        grows: it is given more slots instead of evicting.
        facts: what else the file says.
        payload: what is known of each example, or of each slot of a file without ids.
    """

    kind: str
    config: MemoryConfig
    state: MemoryState
    portable: PortableState
    labels: dict[int, str] = field(default_factory=dict)
    ids: NDArray[np.int64] | None = None
    grows: bool = False
    facts: dict[str, str] = field(default_factory=dict)
    payload: list[str] | None = None

    def label(self, value: int) -> str:
        """What a value stands for."""
        return self.labels.get(value, str(value))

    def example(self, slot: int) -> str:
        """What is known of what is in a filled slot, or nothing."""
        place = slot if self.ids is None else int(self.ids[slot])
        text = "" if self.payload is None else self.payload[place]
        return text if self.ids is None else f"id {place}: {text}" if text else f"id {place}"

    @property
    def has_examples(self) -> bool:
        """Whether anything is known of what is in a slot."""
        return self.ids is not None or self.payload is not None


def read(path: Path, name: str | None = None) -> Content:
    """What is in a file, or in a model's folder.

    Args:
        path: the file or the folder.
        name: which memory, where a model has several.

    Raises:
        ConfigError: there is nothing of that name, or the model has several memories and none is named.
        CheckpointError: it is damaged, none of ours, or of a newer schema.
        MissingPackageError: it is a classifier's, and scikit-learn is not installed.
        OSError: it cannot be read.
    """
    if not path.exists():
        raise ConfigError(f"{path}: there is no such file; {EXPECTED}.")
    metadata, names = _entries(path)
    if path.is_dir() or path.name.endswith(models.INDEX) or models.memories(names):
        return _of_model(path, name)
    if name is not None:
        raise ConfigError(f"--memory {name}: {path} is no model's file, and holds one memory; leave it out.")
    if CLASSIFIER in metadata:
        return _of_classifier(path)
    if names and HEADER not in metadata:
        raise CheckpointError(f"{path} is a safetensors file without a memory in it (of {len(names)} arrays); {EXPECTED}.")
    return _of_memory(path)


def _entries(path: Path) -> tuple[dict[str, str], list[str]]:
    """The metadata and the names of the arrays of a safetensors file; nothing of anything else."""
    if path.is_file():
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                return file.metadata() or {}, list(file.keys())
        except Exception:  # `raremem.load` says what is wrong
            pass
    return {}, []


def _of_memory(path: Path) -> Content:
    config, state = raremem.load(path)
    schema = json.loads(_entries(path)[0][HEADER])["schema"]
    return Content(f"a memory, schema {schema}", config, state, _numpy().to_numpy(state))


def _of_classifier(path: Path) -> Content:
    from raremem.adapters.sklearn import MemoryClassifier

    classifier: Any = MemoryClassifier.load(path, backend="numpy")
    held = classifier.contents()
    facts = {
        "learned map": "none" if classifier.map_ is None else f"{classifier.n_features_in_} to {held.config.key_dim} numbers",
        "refused as unknown": "nothing" if classifier.threshold_ == -np.inf else f"evidence below {classifier.threshold_:.4g}",
    }
    state = _numpy().from_numpy(held.config, held.portable)
    labels = {value: str(label) for value, label in held.labels.items()}
    schema = json.loads(json.loads(_entries(path)[0][CLASSIFIER])[1])["schema"]
    kind = f"a MemoryClassifier, schema {schema}"
    return Content(kind, held.config, state, held.portable, labels, held.ids, held.grows, facts)


def _of_model(path: Path, name: str | None) -> Content:
    found = models.read(path, name)
    state = _numpy().from_numpy(found.config, found.portable)
    return Content(f"a Memory in a model, {found.name or 'the model itself'}", found.config, state, found.portable)


def _numpy() -> Backend:
    return raremem.get_backend("numpy")


def with_payload(content: Content, path: Path) -> Content:
    """What a file says of each example, or of each slot of a memory without ids.

    Args:
        content: what it belongs to.
        path: a text with a line each, or, if its name ends in .json, a JSON list with an entry each, null for none.

    Raises:
        DataError: it cannot be read, or has fewer than there are.
    """
    each = "each slot" if content.ids is None else "each example learned, in that order"
    payload = _list(path, each) if path.suffix == ".json" else read_lines(path, f"a line for {each}")
    last = int((np.flatnonzero(content.portable["filled"]) if content.ids is None else content.ids).max(initial=-1))
    if len(payload) <= last:
        raise DataError(f"{path} has {len(payload):,} entries; expected {last + 1:,} at least, one for {each}.")
    return replace(content, payload=payload)


def _list(path: Path, each: str) -> list[str]:
    try:
        entries = json.loads(path.read_bytes())
        if not isinstance(entries, list):
            raise ValueError(f"it holds a {type(entries).__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected a JSON list with an entry for {each}.") from error
    return ["" if entry is None else entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
