"""A memory in a file: safetensors, with a schema version, the config and a checksum in its header.

Equal states give equal bytes, whichever backend wrote them. Nothing in the file is executable.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from .backend import Backend
from .config import MemoryConfig
from .errors import CheckpointError, RarememError, StateError
from .registry import get_backend
from .state import check_portable, resized

SCHEMA = 3
"""1 had no hits: a file of it is read as one of slots that were never hit. 1 and 2 had no checksum."""

ARRAYS = ("keys", "values", "ages", "filled", "hits")
HEADER = "raremem"
"""The one entry of the file's metadata: the order of several would not be the same from one file to the next."""


def save(path: str | os.PathLike[str], config: MemoryConfig, state: Any, backend: str | Backend | None = None) -> None:
    """Write a memory to `path`: whole, or not at all.

    Args:
        path: the file; an older one is replaced in one step.
        config: the memory's config.
        state: the memory, of any backend.
        backend: whose state it is; by default the one that owns its arrays.

    Raises:
        UnknownBackendError: no backend owns the state's arrays.
        OSError: the file cannot be written; the older one is as it was.
    """
    _check_is_no_module(state)
    if not isinstance(backend, Backend):
        backend = get_backend(getattr(state, "keys", state) if backend is None else backend)
    portable = backend.to_numpy(state)
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
        CheckpointError: the file is damaged, is no memory, or has a newer schema.
        ConfigError: `slots` is no number of slots.
        OSError: the file cannot be read.
    """
    chosen = backend if isinstance(backend, Backend) else get_backend(backend)
    _check_is_no_state_dict(Path(path))
    with open(path, "rb"):
        pass
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            if header["schema"] not in range(1, SCHEMA + 1):
                raise CheckpointError(f"{path} has schema {header['schema']}; expected 1 to {SCHEMA}. Update raremem.")
            config = MemoryConfig(**header["config"])
            names = [name for name in (*ARRAYS, "step") if name != "hits" or header["schema"] > 1]
            portable: dict[str, Any] = {name: file.get_tensor(name) for name in names}
        if header.get("sha256") != (_checksum(header["config"], portable) if header["schema"] > 2 else None):
            raise CheckpointError(f"{path} was changed after it was written: its checksum is another. Use an older one.")
        portable["step"] = int(portable["step"])
        if slots is None:
            return config, chosen.from_numpy(config, portable)
        portable = check_portable(config, portable)
    except CheckpointError:
        raise
    except (safetensors.SafetensorError, RarememError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is not a whole raremem checkpoint ({error}). Use an older one.") from error
    other = dataclasses.replace(config, slots=slots)
    return other, chosen.from_numpy(other, resized(config, portable, slots))


def _check_is_no_module(state: Any) -> None:
    """Check that what is given for a state is not the module that has one."""
    if hasattr(state, "state_dict") or hasattr(state, "state"):
        raise StateError(
            f"what is to be saved is a {type(state).__name__}; expected a state. Save a module with memory.save(path), or its "
            "state: raremem.save(path, memory.config, memory.state, memory.backend)."
        )


def _check_is_no_state_dict(path: Path) -> None:
    """Check that a file is none that `torch.save` writes: a zip archive, or in its older form a pickle."""
    if not path.is_file():
        return
    with open(path, "rb") as file:
        if file.read(4) in (b"PK\x03\x04", b"\x80\x02\x8a\x0a"):
            raise CheckpointError(
                f"{path} was written by torch.save; expected a file of raremem.save. Load a state_dict with "
                "memory.load_state_dict(torch.load(path)), and save a memory with memory.save(path)."
            )


def _checksum(fields: dict[str, Any], arrays: dict[str, Any]) -> str:
    """Of a config's fields and all arrays."""
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def replace_file(path: Path, content: bytes) -> None:
    """Write beside `path`, force it to disk, and only then take the name."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
