"""The memory in a model's weights: the entries of `raremem.adapters.torch.Memory` in safetensors, in one file or in several."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import safetensors

from raremem.config import MemoryConfig
from raremem.errors import CheckpointError, ConfigError
from raremem.state import MemoryState, PortableState, check_portable, to_portable

WHOLE = "model.safetensors"
INDEX = ".safetensors.index.json"
"""How the name ends of the file that says which of a model's files has which entry (Hugging Face's convention)."""
EXTRA = "_extra_state"
"""The entry with the config, as JSON in bytes: where PyTorch has what `get_extra_state` returns."""
ENTRIES = (*MemoryState._fields, EXTRA)


class ModelMemory(NamedTuple):
    """A memory of a model: its name there, its config, and its content."""

    name: str
    config: MemoryConfig
    portable: PortableState


def memories(names: Iterable[str]) -> list[str]:
    """The prefixes of the memories that a model's entries of these names hold."""
    there = set(names)
    starts = sorted(name.removesuffix(EXTRA) for name in there if name.endswith(EXTRA))
    return [start for start in starts if all(start + entry in there for entry in ENTRIES)]


def read(path: Path, name: str | None) -> ModelMemory:
    """The memory in a model's file, index or folder.

    Args:
        path: the file, the index, or the folder with `model.safetensors` or an index in it.
        name: which, where there are several.

    Raises:
        ConfigError: there are several and none is named, or none of that name.
        CheckpointError: there is none, or what is there is no whole memory.
        OSError: a file cannot be read.
    """
    try:
        files = _files(path)
        start = _chosen(path, memories(files), name)
        arrays = _arrays({entry: files[start + entry] for entry in ENTRIES}, start)
        return ModelMemory(start.rstrip("."), *_memory(arrays))
    except (ConfigError, CheckpointError, OSError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path} holds no whole memory ({reason}). Load an older copy.") from error


def _files(path: Path) -> dict[str, Path]:
    """The file of each entry."""
    if path.is_dir():
        indexes = sorted(path.glob(f"*{INDEX}"))
        if not (path / WHOLE).is_file() and len(indexes) != 1:
            raise CheckpointError(f"{path} is a folder without {WHOLE}, or one *{INDEX}; name the file that holds the memory.")
        path = path / WHOLE if (path / WHOLE).is_file() else indexes[0]
    if not path.name.endswith(INDEX):
        with safetensors.safe_open(path, framework="numpy") as file:
            return dict.fromkeys(file.keys(), path)
    named = json.loads(path.read_bytes())["weight_map"]
    outside = [file for file in named.values() if Path(file).name != file]
    if outside:
        raise ValueError(f"its index names {outside[0]!r}, where the name of a file in the same folder is expected")
    return {entry: path.parent / file for entry, file in named.items()}


def _chosen(path: Path, starts: list[str], name: str | None) -> str:
    """The prefix of the memory that is asked for."""
    named = ", ".join(start.rstrip(".") or "the model itself" for start in starts)
    if not starts:
        raise CheckpointError(
            f"{path} is a model without a memory in it; expected the entries {', '.join(ENTRIES)} of a "
            "raremem.adapters.torch.Memory."
        )
    if name is None and len(starts) > 1:
        raise ConfigError(f"{path} has {len(starts)} memories: {named}. Name one with --memory.")
    chosen = starts if name is None else [start for start in starts if start.rstrip(".") == name]
    if not chosen:
        raise ConfigError(f"--memory {name}: {path} has none of that name; expected {named}.")
    return chosen[0]


def _arrays(files: dict[str, Path], start: str) -> dict[str, Any]:
    """The arrays of these entries, each from its file."""
    with ExitStack() as stack:
        opened = {
            path: stack.enter_context(safetensors.safe_open(path, framework="numpy")) for path in dict.fromkeys(files.values())
        }
        return {entry: opened[path].get_tensor(start + entry) for entry, path in files.items()}


def _memory(arrays: dict[str, Any]) -> tuple[MemoryConfig, PortableState]:
    """The config and the content in the entries of a memory."""
    extra = json.loads(arrays.pop(EXTRA).tobytes())
    if extra.get("ranks", 1) != 1:
        raise CheckpointError(
            f"this is the part of rank {extra['rank']} of a memory over {extra['ranks']} ranks; expected a whole one. "
            "Save it with memory.save(path) on all ranks."
        )
    config = MemoryConfig(**extra["config"])
    if arrays["values"].shape != (config.slots,):
        raise ValueError(f"its values are {list(arrays['values'].shape)}, where [{config.slots}] is expected")
    keys, values, last_used, hits, step = (arrays[name] for name in MemoryState._fields)
    return config, check_portable(config, to_portable(keys, values, last_used, hits, int(step)))
