"""PyTorch's tables of primitives: for any tensors, for eager ones on a CPU, and for NumPy views with PyTorch's products."""

from __future__ import annotations

import operator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raremem import score_order
from raremem.adapters.numpy import NumpyPrimitives, is_product_cheaper
from raremem.adapters.torch import modes, operators
from raremem.config import MAX_INT32
from raremem.errors import DeviceError
from raremem.primitives import Primitives, set_all
from raremem.state import MemoryState

IN_NUMPY = operator.methodcaller("numpy", force=True)
"""A tensor as a NumPy array, which shares the storage of a CPU tensor."""


class TorchPrimitives(Primitives):
    """The table for any tensors: on an accelerator, traced, or in a transform of `torch.func`."""

    name = "torch"
    xp: Any = torch

    def asarray(self, array: Any, like: Tensor | None = None) -> Tensor:
        if not isinstance(array, Tensor):
            device = torch.get_default_device() if like is None else like.device
            with torch.inference_mode(False) if like is None else nullcontext():
                return torch.as_tensor(array if torch.compiler.is_compiling() else modes.native(array), device=device)
        if like is None:
            return array
        if array.device != like.device:
            raise DeviceError(
                f"an input is on {array.device}; expected {like.device}, where the memory is. "
                "Move one of them with .to(device)."
            )
        return array

    def to_numpy(self, array: Tensor) -> NDArray[Any]:
        if not modes.has_content(array):
            raise DeviceError(
                "a tensor on meta, in a trace or in a transform of torch.func was asked for its content; expected one that has "
                "it. Make the memory on a device (and load its state_dict), and call this outside the trace."
            )
        return np.array(array.detach().cpu().numpy())

    def copy(self, array: Tensor) -> Tensor:
        with torch.inference_mode(False):
            return array.detach().clone()

    def peek(self, array: Any, wait: bool = False) -> NDArray[Any] | None:
        if not isinstance(array, Tensor):
            return np.asarray(array)
        if not modes.seen(array):
            return None
        return array.detach().cpu().numpy() if wait or array.device.type == "cpu" else None

    def identity(self, array: Tensor) -> Tensor | None:
        return None if modes.traced() else array

    def cast(self, array: Tensor, dtype: str) -> Tensor:
        return array.to(getattr(torch, dtype))

    def constant(self, array: Tensor) -> Tensor:
        return array.detach()

    def arange(self, count: int, like: Tensor) -> Tensor:
        return torch.arange(count, dtype=torch.int32, device=like.device)

    def multiply(self, array: Tensor, factor: int) -> Tensor:
        return (array.long() * factor).to(torch.int32)

    def power_of_two(self, array: Tensor) -> Tensor:
        return self.bits_as(self.bits_as(array, torch.int32) & 0x7F800000, torch.float32)

    def bits_as(self, array: Tensor, dtype: torch.dtype) -> Tensor:
        """`array.view(dtype)`, for a dtype of the same size."""
        operator = not torch.compiler.is_compiling() and modes.transformed()
        return operators.bits_as(array, dtype) if operator else array.view(dtype)

    def inner(self, left: Tensor, right: Tensor) -> Tensor:
        with modes.without_autocast(left):
            if modes.rounded(left):
                return (left.double() @ right.double().T).float()
            return left @ right.T

    def score(self, queries: Tensor, keys: Tensor) -> Tensor:
        if keys.is_cuda or modes.rounded(keys):
            return (keys * queries[:, None, :]).sum(2)
        with modes.without_autocast(keys):  # MKL takes six times as long for keys times a column
            return torch.matmul(queries[:, None, :], keys.transpose(1, 2))[:, 0]

    def top_k(self, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
        ranked = self._ranked(scores, torch.arange(scores.shape[1], device=scores.device))
        ranked = ranked.amax(1, keepdim=True) if k == 1 else torch.topk(ranked, k, dim=1).values
        best = ranked.to(torch.int32) ^ MAX_INT32
        return self.take_along(scores, best), best

    def sort_order(self, scores: Tensor, slots: Tensor, k: int | None = None) -> Tensor:
        return torch.topk(self._ranked(scores, slots), scores.shape[1] if k is None else k, dim=1).indices

    def _ranked(self, scores: Tensor, slots: Tensor) -> Tensor:
        """See `score_order.ordinal`."""
        if scores.dtype == torch.float32:
            scores = score_order.ordered(self.bits_as(scores, torch.int32))
        return score_order.ordinal(scores.long(), slots)

    def score_rows(self, queries: Tensor, array: Tensor, rows: Tensor) -> Tensor:
        if torch.compiler.is_compiling() and _needs_gradient(queries):
            return self.score(queries, operators.gathered(array, rows))  # the compiler would gather again, after an update
        return self.score(queries, array[rows])

    def take_along(self, array: Tensor, columns: Tensor) -> Tensor:
        return torch.gather(array, 1, columns.long())

    def sum_by_column(self, array: Tensor, columns: Tensor, count: int) -> Tensor:
        return array.new_zeros(array.shape[0], count).scatter_add(1, columns.long(), array)

    def slice_rows(self, array: Tensor, start: int, count: int) -> Tensor:
        return array[start : start + count]

    def put_rows(self, array: Tensor, rows: Tensor, content: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            content = operators.computed_before(content)
        return array.index_copy_(0, rows.long(), content)

    def write(self, state: MemoryState, slots: Tensor, content: MemoryState) -> MemoryState:
        if torch.compiler.is_compiling():
            after = super().write(state, slots, content)
            return MemoryState(after.keys, after.values, after.last_used, after.hits, state.step.copy_(after.step))
        slots = slots.long()
        set_all(state, (slots, slots, slots, slots, ()), content)
        return state


def _needs_gradient(array: Tensor) -> bool:
    return array.requires_grad and torch.is_grad_enabled()


class EagerPrimitives(TorchPrimitives):
    """The table for eager tensors on a CPU (`modes.plain`): the same operations without checks of the mode in each."""

    eager = True
    always_gathered = 2**21
    """So many numbers of gathered keys fit into a CPU's cache: below that, keys are always gathered."""
    constant = staticmethod(Tensor.detach)  # type: ignore[assignment]
    bits_as = staticmethod(Tensor.view)  # type: ignore[assignment]

    def peek(self, array: Any, wait: bool = False) -> NDArray[Any] | None:
        return array.detach().numpy() if isinstance(array, Tensor) else np.asarray(array)

    def identity(self, array: Tensor) -> Tensor | None:
        return array

    def inner(self, left: Tensor, right: Tensor) -> Tensor:
        if not modes.products_are_exact():
            return super().inner(left, right)
        if len(right) == 1 and right.shape[1] > 64:  # MKL takes twice as long for one row as for two
            return (left @ right.repeat(2, 1).T)[:, :1]
        return left @ right.T

    def score(self, queries: Tensor, keys: Tensor) -> Tensor:
        if not modes.products_are_exact():
            return super().score(queries, keys)
        return torch.bmm(queries[:, None, :], keys.transpose(1, 2))[:, 0]  # MKL takes six times as long for keys first

    def sort_order(self, scores: Tensor, slots: Tensor, k: int | None = None) -> Tensor:
        return torch.from_numpy(HOST.sort_order(scores.detach().numpy(), slots.numpy(), k))  # a third of the time

    def score_rows(self, queries: Tensor, array: Tensor, rows: Tensor) -> Tensor:
        if is_product_cheaper(self.always_gathered, array, rows):
            # An update may write to it before the gradient is taken.
            kept = array.clone() if _needs_gradient(queries) else array
            return self.take_along(self.inner(queries, kept), rows)
        found = torch.index_select(array, 0, rows.reshape(-1))  # `array[rows]` copies number by number, and this row by row
        return self.score(queries, found.view(*rows.shape, array.shape[1]))


EAGER = EagerPrimitives()


class NumpyBesideTorch(NumpyPrimitives):
    """NumPy's table with PyTorch's matrix products: the threads of two libraries would compete for the cores."""

    def inner(self, left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
        return EAGER.inner(torch.from_numpy(left), torch.from_numpy(right)).numpy()

    def score(self, queries: NDArray[Any], keys: NDArray[Any]) -> NDArray[Any]:
        return EAGER.score(torch.from_numpy(queries), torch.from_numpy(keys)).numpy()


HOST = NumpyBesideTorch()
"""The table for NumPy views of tensors."""
