"""Checks of a state_dict, all of them before any of it is loaded."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from raremem.adapters.torch.buffers import NAMES, RANGES, LoadError, in_numpy, plain, sharing, uncast
from raremem.state import MemoryState, check_portable, to_portable

EXTRA = "_extra_state"
"""The state_dict entry in which PyTorch keeps what `get_extra_state` returns."""


def loaded_state(memory: Any, given: dict[str, Any], assign: bool) -> MemoryState | None:
    """The buffers in the entries of a state_dict, checked; None if entries and memory are all on the meta device.

    Args:
        memory: the `MemoryModule` to load them into.
        given: the entries, by their names in the memory.
        assign: whether the tensors become its buffers; else they are copied into them.

    Raises:
        LoadError: entries are missing, or do not fit the memory.
        StateError: their content breaks an invariant of a memory.
    """
    _check_entries(memory, given)
    tensors = MemoryState(*(plain(given[name]) for name in NAMES))
    on_meta = memory.keys.is_meta
    if all(tensor.is_meta for tensor in tensors) and on_meta:
        return None
    if any(tensor.is_meta for tensor in tensors) or (on_meta and not assign):
        raise LoadError(
            f"the {'memory' if on_meta else 'state_dict'} is on meta; expected content. Load what has content "
            "with assign=True, or after memory.to_empty(device=...)."
        )
    if len({tensor.device for tensor in tensors}) > 1:
        raise LoadError("the state_dict's tensors are on several devices; expected one. Load it with map_location.")
    whole = MemoryState(*map(uncast, NAMES, tensors))
    _check_content(memory, MemoryState(*map(in_numpy, whole)))
    shared = sharing(whole) if assign else None
    if shared is not None:
        raise LoadError(f"in the state_dict {shared}; expected memory of its own for each. Clone them, or leave out assign.")
    return whole


def _check_content(memory: Any, arrays: MemoryState) -> None:
    """Check buffers, as NumPy arrays, by the rules of a portable state."""
    here = memory._slots()
    of_slots = MemoryState(arrays.keys, arrays.values[here], arrays.last_used[here], arrays.hits[here], arrays.step)
    for name, (least, most) in RANGES.items():
        array = getattr(arrays, name)
        if array.min() < least or array.max() > most:
            raise LoadError(f"{name} reach from {array.min()} to {array.max()}; expected [{least}, {most}].")
    if len(arrays.keys):
        config = dataclasses.replace(memory.config, slots=len(arrays.keys))
        check_portable(config, to_portable(*of_slots[:4], int(of_slots.step)))


def _check_entries(memory: Any, given: dict[str, Any]) -> None:
    """Check that a state_dict has all entries of this memory and no other, of its shapes and its config."""
    _check_names(memory, {name for name in given if name != EXTRA})
    if EXTRA in given:
        memory.set_extra_state(given[EXTRA])
    elif memory._is_part:
        raise LoadError(
            f"the state_dict has no {EXTRA!r}, and so does not say whose part it is; expected this rank's. If so, give it "
            f"one: state_dict[{EXTRA!r}] = memory.get_extra_state()."
        )
    own = {**{name: getattr(memory, name) for name in NAMES}, **dict(memory.named_parameters())}
    for name in (name for name in own if name in given):
        if not isinstance(given[name], Tensor) or given[name].shape != own[name].shape:
            found = list(given[name].shape) if isinstance(given[name], Tensor) else type(given[name]).__name__
            raise LoadError(
                f"{name} in the state_dict is {found}; expected {list(own[name].shape)} for this memory's config. "
                "Make the memory with the config it was saved with."
            )


def _check_names(memory: Any, there: set[str]) -> None:
    """Check that these are the names of this memory's entries."""
    missing = [name for name in NAMES if name not in there]
    if memory.projection is not None and not any(name.startswith("projection.") for name in there):
        missing.append("projection.weight")
    known = {*memory._parameters, *memory._buffers, *memory._modules}
    unexpected = sorted(name for name in there if name.partition(".")[0] not in known)
    unexpected += sorted(name for name in there if name.startswith("projection.") and memory.projection is None)
    if missing or unexpected:
        arrived = f"no {', '.join(missing)}" if missing else f"also {', '.join(dict.fromkeys(unexpected))}"
        expected = ", ".join(NAMES if memory.projection is None else (*NAMES, "projection.weight"))
        raise LoadError(
            f"the state_dict has {arrived}; expected {expected}: all of them, or none. "
            "Make the memory as the saved one was (query_dim), or take its content alone with memory.fill."
        )
