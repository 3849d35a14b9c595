"""Custom operators for PyTorch.

PyTorch registers an operator once a process. If this module ran a second time, the new operators would replace the first in
every function that uses them. So they are in a file of their own, which the planted faults do not run again.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from raremem.state import ForgetReport, Lookup, MemoryState, UpdateReport


@torch.library.custom_op("raremem::computed_before", mutates_args=())
def computed_before(content: Tensor) -> Tensor:
    """`content`, which the compiler must compute completely before it writes any of it.

    Otherwise the compiler may compute it row by row in the loop that writes the rows, and so read what an earlier row has
    written to the same array; or compute it again for a gradient, after an update has written to the array.
    """
    return content.clone()


@computed_before.register_fake
def _like(content: Tensor) -> Tensor:
    return torch.empty_like(content)


@computed_before.register_vmap
def _each_before(info: Any, in_dims: tuple[int | None], content: Tensor) -> tuple[Tensor, int | None]:
    return computed_before(content), in_dims[0]


@torch.library.custom_op("raremem::gathered", mutates_args=())
def gathered(array: Tensor, rows: Tensor) -> Tensor:
    """`array[rows]`, none of `rows` negative. As the compiler cannot trace into it, its result is saved for the backward pass.
    Otherwise the rows would be gathered again there, after an update has written to them."""
    return array.index_select(0, rows.reshape(-1)).reshape(*rows.shape, *array.shape[1:])


@gathered.register_fake
def _as_gathered(array: Tensor, rows: Tensor) -> Tensor:
    return array.new_empty(*rows.shape, *array.shape[1:])


@gathered.register_vmap
def _gathered_of_each(info: Any, in_dims: tuple[int | None, int | None], array: Tensor, rows: Tensor) -> tuple[Tensor, int]:
    of_array, of_rows = in_dims
    rows = rows.expand(info.batch_size, *rows.shape) if of_rows is None else rows.movedim(of_rows, 0)
    if of_array is None:
        return gathered(array, rows), 0
    arrays = array.movedim(of_array, 0)
    first = torch.arange(info.batch_size, device=rows.device).reshape(-1, *[1] * (rows.ndim - 1)) * arrays.shape[1]
    return gathered(arrays.flatten(0, 1), rows + first), 0


@torch.library.custom_op("raremem::bits_as", mutates_args=())
def bits_as(content: Tensor, dtype: torch.dtype) -> Tensor:
    """`content.view(dtype)`, for a dtype of the same size: some releases of PyTorch have no batching rule for it."""
    return content.view(dtype).clone()


@bits_as.register_fake
def _as_many(content: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(content, dtype=dtype)


@bits_as.register_vmap
def _of_all(info: Any, in_dims: tuple[int | None, ...], content: Tensor, dtype: torch.dtype) -> tuple[Tensor, int | None]:
    return bits_as(content, dtype), in_dims[0]


def _take_none_for_no_leaf(kind: type) -> None:
    """Make None no leaf when PyTorch flattens this named tuple, as in JAX: for vmap and for export.

    If a class has `_fields`, `_make` and a callable `_asdict`, PyTorch takes every field for a leaf, whatever is registered for
    the class. So `_asdict` becomes a property here, whose value is the function.
    """

    def flatten(tree: Any) -> tuple[list[Any], list[str]]:
        there = [name for name in tree._fields if getattr(tree, name) is not None]
        return [getattr(tree, name) for name in there], there

    def flatten_with_keys(tree: Any) -> tuple[list[tuple[Any, Any]], list[str]]:
        leaves, there = flatten(tree)
        return [(pytree.GetAttrKey(name), leaf) for name, leaf in zip(there, leaves, strict=True)], there

    def unflatten(leaves: Iterable[Any], there: list[str]) -> Any:
        return kind(**{**dict.fromkeys(kind._fields), **dict(zip(there, leaves, strict=True))})  # type: ignore[attr-defined]

    as_dict = kind._asdict  # type: ignore[attr-defined]
    kind._asdict = property(lambda tree: partial(as_dict, tree))  # type: ignore[attr-defined]
    pytree.register_pytree_node(
        kind,
        flatten,
        unflatten,
        flatten_with_keys_fn=flatten_with_keys,
        serialized_type_name=f"{kind.__module__}.{kind.__qualname__}",
        to_dumpable_context=list,
        from_dumpable_context=list,
    )


for kind in (MemoryState, Lookup, UpdateReport, ForgetReport):
    _take_none_for_no_leaf(kind)
