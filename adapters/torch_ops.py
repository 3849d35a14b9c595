"""Operators of our own.

They are registered with PyTorch once a process: a module that registers them again, reloaded say, takes them away from every
function that holds the first. So they live apart from the adapter, which the planted faults run a second time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from raremem import search
from raremem.state import MemoryState


@torch.library.custom_op("raremem::computed_before", mutates_args=())
def computed_before(content: Tensor) -> Tensor:
    """`content`, computed in whole before anything is written: the compiler may not look into it.

    Else the compiler may work it out row by row in the loop that writes the rows, and what it then reads from the same array
    is what an earlier row has written.
    """
    return content.clone()


@computed_before.register_fake
def _like(content: Tensor) -> Tensor:
    return torch.empty_like(content)


@torch.library.custom_op("raremem::gathered", mutates_args=())
def gathered(array: Tensor, rows: Tensor) -> Tensor:
    """`array[rows]`, none of `rows` negative. The compiler may not look into it, and so keeps what it gave for the way back."""
    return array.index_select(0, rows.reshape(-1)).reshape(*rows.shape, *array.shape[1:])


@gathered.register_fake
def _as_gathered(array: Tensor, rows: Tensor) -> Tensor:
    return array.new_empty(*rows.shape, *array.shape[1:])


@torch.library.custom_op("raremem::bits_as", mutates_args=())
def bits_as(content: Tensor, dtype: torch.dtype) -> Tensor:
    """`content.view(dtype)`, of as many bits, for what is batched: some releases of PyTorch have no rule for that."""
    return content.view(dtype).clone()


@bits_as.register_fake
def _as_many(content: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(content, dtype=dtype)


@bits_as.register_vmap
def _of_all(info: Any, in_dims: tuple[int | None, ...], content: Tensor, dtype: torch.dtype) -> tuple[Tensor, int | None]:
    return bits_as(content, dtype), in_dims[0]


@torch.library.custom_op(
    "raremem::nearest_on_cpu",
    mutates_args=(),
    schema="(Tensor[] state, Tensor queries, Tensor? targets, SymInt k) -> (Tensor, Tensor)",
)
def nearest(state: list[Tensor], queries: Tensor, targets: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """As `search.nearest` for eager arrays; without targets the second is [B, 0]. The compiler may not look into it: shapes
    depend on content there."""
    from raremem.adapters.torch import TorchPrimitives

    slots, best = search.nearest(TorchPrimitives(), MemoryState(*state), queries, targets, k)
    return slots, slots.new_empty((len(queries), 0)) if best is None else best


@nearest.register_fake
def _as_found(state: list[Tensor], queries: Tensor, targets: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    found = queries.new_empty((len(queries), k), dtype=torch.int32)
    return found, found.new_empty((len(queries), 0 if targets is None else 1))
