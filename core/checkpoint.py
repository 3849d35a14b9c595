"""A memory in a file: safetensors, with a schema version, the config and a checksum in its header.

Equal states give equal bytes, whichever backend wrote them. Nothing in the file is executable.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from .backend import Backend
from .config import MemoryConfig, shown
from .errors import CheckpointError, ConfigError, StateError
from .files import replace_file
from .registry import get_backend
from .state import check_portable, resized

SCHEMA = 4
"""The version of the file format. 1 had no hits: its slots are read as never hit. 1 and 2 had no checksum. 1 to 3 had no
`write`: they are read as `write="merge"`."""

ARRAYS = {"keys": "F32", "values": "I32", "ages": "I32", "filled": "BOOL", "hits": "I32"}
"""The arrays in a file, beside the step, with their safetensors dtypes."""

HEADER = "raremem"
"""The only entry of the file's metadata: of several, the order would differ from file to file."""


def save(path: str | os.PathLike[str], config: MemoryConfig, state: Any, backend: str | Backend | None = None) -> None:
    """Write a memory to `path`: whole, or not at all.

    Args:
        path: the file. An older one is replaced in one step and keeps its mode, owner and attributes; a link stays one. What
            happens with links, FIFOs and devices is said at `raremem.files.replace_file`.
        config: the memory's config.
        state: the memory, of any backend.
        backend: whose state it is; by default the one that owns its arrays.

    Raises:
        UnknownBackendError: no backend owns the state's arrays.
        ConfigError: the config is none.
        StateError: `load` would refuse it: it does not fit the config, or a key is no unit vector (an optimizer's weight decay
            may have moved it), say.
        OSError: the file cannot be written; the older one is as it was.
    """
    _check_is_no_module(state)
    if not isinstance(config, MemoryConfig):
        raise ConfigError(f"the config is a {type(config).__name__}; expected a MemoryConfig, before the state.")
    if not isinstance(backend, Backend):
        backend = get_backend(getattr(state, "keys", state) if backend is None else backend)
    portable = check_portable(config, backend.to_numpy(state))
    arrays = {name: np.ascontiguousarray(portable[name]) for name in ARRAYS}
    arrays["step"] = np.asarray(portable["step"], np.int64)
    fields = dataclasses.asdict(config)
    header = {"schema": SCHEMA, "config": fields, "sha256": _checksum(fields, arrays)}
    replace_file(Path(path), safetensors.numpy.save(arrays, {HEADER: json.dumps(header, sort_keys=True)}))


def load(path: str | os.PathLike[str], backend: str | Backend = "numpy", slots: int | None = None) -> tuple[MemoryConfig, Any]:
    """The config and the state in the file at `path`, as a state of `backend`.

    Args:
        path: the file.
        backend: whose state it is to be; any can read what any other wrote.
        slots: load into a memory of so many slots. With more, the new ones are empty, after the others. With fewer, what would
            be evicted first is left out (rule 5, without noise), and what is kept moves together in the order of its slots.

    Raises:
        CheckpointError: there is something, but it is damaged, is no memory, or has a newer schema.
        ConfigError: `slots` is no number of slots.
        OSError: the file is missing (FileNotFoundError), or cannot be read.
    """
    chosen = backend if isinstance(backend, Backend) else get_backend(backend)
    path = Path(path)
    _check_is_no_state_dict(path)
    config, portable = _read(path)
    try:
        if slots is None:
            return config, chosen.from_numpy(config, portable)
        portable = check_portable(config, portable)
    except StateError as error:
        raise _refusal(path, error) from error
    other = dataclasses.replace(config, slots=slots)
    return other, chosen.from_numpy(other, resized(config, portable, slots)[0])


def _read(path: Path) -> tuple[MemoryConfig, dict[str, Any]]:
    """Read a file, and check its types, shapes and checksum. The arrays' content is checked later."""
    if path.is_dir() or path.is_file():
        with open(path, "rb"):
            pass  # what the system refuses is its own error
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("it is a device or a pipe, where a file is expected")
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if list(metadata) == ["raremem-classifier"]:
                raise CheckpointError(
                    f"{path} was written by MemoryClassifier.save; expected a file of raremem.save. Load it with "
                    "raremem.adapters.sklearn.MemoryClassifier.load(path)."
                )
            if list(metadata) != [HEADER]:
                raise ValueError(f"its metadata is {sorted(metadata)}, where {[HEADER]} is expected")
            header = json.loads(metadata[HEADER], object_pairs_hook=_without_duplicates)
            schema = _schema(path, header)
            config = MemoryConfig(**header["config"])
            _check_arrays(config, schema, {name: file.get_slice(name) for name in file.keys()})  # noqa: SIM118
            portable: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if schema > 2 and header["sha256"] != _checksum(header["config"], portable):
            raise CheckpointError(
                f"{path} was changed after it was written: its checksum does not match its content. Load an older copy."
            )
        if portable["filled"].view(np.uint8).max() > 1:
            raise ValueError("filled holds bytes other than 0 and 1")
    except (CheckpointError, OSError, MemoryError):
        raise
    except Exception as error:
        raise _refusal(path, error) from error
    return config, {**portable, "step": int(portable["step"])}


def _schema(path: Path, header: Any) -> int:
    """Check that a header has the entries of its schema, and return the schema."""
    if not isinstance(header, dict) or type(header.get("schema")) is not int:
        raise ValueError("its header has no whole number as schema")
    schema: int = header["schema"]
    if not 1 <= schema <= SCHEMA:
        raise CheckpointError(
            f"{path} has schema {shown(schema)}; expected 1 to {SCHEMA}. Update raremem, if a later version wrote it. "
            "Else it is damaged. Load an older copy."
        )
    expected = ["config", "schema", "sha256"] if schema > 2 else ["config", "schema"]
    if not isinstance(header["config"], dict):
        raise ValueError(f"its config is a {type(header['config']).__name__}")
    if sorted(header) != expected:
        raise ValueError(f"its header has {sorted(header)}, where {expected} is expected")
    return schema


def _check_arrays(config: MemoryConfig, schema: int, found: dict[str, Any]) -> None:
    """Check names, dtypes and shapes of a file's arrays before any is read."""
    shapes = {name: (dtype, [config.slots]) for name, dtype in ARRAYS.items() if name != "hits" or schema > 1}
    expected = {**shapes, "keys": (ARRAYS["keys"], [config.slots, config.key_dim]), "step": ("I64", [])}
    if found.keys() != expected.keys():
        raise ValueError(f"it holds {', '.join(sorted(found))}, where {', '.join(sorted(expected))} is expected")
    for name, array in found.items():
        dtype, shape = array.get_dtype(), list(array.get_shape())
        if (dtype, shape) != expected[name]:
            raise ValueError(f"its {name} are {dtype} {shape}, where {expected[name][0]} {expected[name][1]} is expected")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict; a repeated name is an error."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name stands twice in its header")
    return dict(pairs)


def _refusal(path: Path, error: Exception) -> CheckpointError:
    """The error for a file that cannot be read as a memory, in one line."""
    reason = " ".join(str(error).split())
    return CheckpointError(
        f"{path} is not a whole raremem checkpoint ({reason[:300]}); expected a file that raremem.save or Memory.save wrote. "
        "Load an older copy."
    )


def _check_is_no_module(state: Any) -> None:
    """Check that the argument is a state, and not a module."""
    if hasattr(state, "state_dict") or hasattr(state, "state"):
        raise StateError(
            f"what is to be saved is a {type(state).__name__}; expected a state. Save a module with memory.save(path), or its "
            "state: raremem.save(path, memory.config, memory.state, memory.backend)."
        )


def _check_is_no_state_dict(path: Path) -> None:
    """Check that a file was not written by `torch.save`: a zip archive, or in its older form a pickle."""
    if not path.is_file():
        return
    with open(path, "rb") as file:
        if file.read(4) in (b"PK\x03\x04", b"\x80\x02\x8a\x0a"):
            raise CheckpointError(
                f"{path} was written by torch.save; expected a file of raremem.save. Load a state_dict with "
                "memory.load_state_dict(torch.load(path)), and save a memory with memory.save(path)."
            )


def _checksum(fields: dict[str, Any], arrays: dict[str, Any]) -> str:
    """The SHA-256 of a config's fields and all arrays."""
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
