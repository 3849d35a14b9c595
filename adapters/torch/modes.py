"""PyTorch's current mode: whether a tensor's content may be read, and whether matrix products are exact in f32."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raremem.errors import StateError
from raremem.state import MemoryState

Result = TypeVar("Result")

EXACT = ("highest", "ieee", "none")
"""Settings of precision in which f32 is not rounded before it is multiplied."""
_TRACERS = (
    torch._C._TorchDispatchModeKey.FAKE,
    torch._C._TorchDispatchModeKey.PROXY,
    torch._C._TorchDispatchModeKey.FUNCTIONAL,
)


def traced() -> bool:
    """Whether code is being traced or compiled: tensors have no content then, or it would become a constant of the program."""
    return (
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or (torch._C._len_torch_dispatch_stack() > 0 and any(map(torch._C._get_dispatch_mode, _TRACERS)))
    )


transformed: Callable[[], object] = torch._C._functorch.peek_interpreter_stack
"""The transform of `torch.func` that is running (vmap, grad, jvp), or None. Its results may be wrapped tensors, which have no
content, even if its arguments are not wrapped. Not to be called while compiling."""


def wrapped(array: Tensor) -> bool:
    """Whether a transform of `torch.func` has wrapped the tensor, at any level. Not to be called while compiling."""
    return torch._C._functorch.is_functorch_wrapped_tensor(array)


def plain(arrays: Iterable[Any]) -> bool:
    """Whether operators run eagerly and all tensors among `arrays` are on the CPU with content that may be read."""
    if traced() or transformed():
        return False
    for array in arrays:
        if isinstance(array, Tensor) and not (array.is_cpu and (type(array) is Tensor or _has_own_operators(array))):
            return False
    return True


def _has_own_operators(array: Tensor) -> bool:
    """Whether the tensor's class does not override operators, as that of fake tensors does."""
    return type(array).__torch_dispatch__ is Tensor.__torch_dispatch__


def seen(array: Tensor) -> bool:
    """Whether the content of `array` may be read.

    It may not while code is traced or transformed, nor that of a meta tensor or of a class that overrides operators (a fake
    tensor).
    """
    return not traced() and not transformed() and not array.is_meta and _has_own_operators(array)


def check_may_write(state: Any) -> None:
    """Check that a transform of `torch.func` writes to a state that it has wrapped: it may write to no other."""
    if torch.compiler.is_compiling() or not transformed():
        return
    if isinstance(state, MemoryState) and not wrapped(state.values):
        raise StateError(
            "a memory was updated inside a transform of torch.func (vmap, grad, ...); expected a state that is mapped itself. "
            "Return the lookup from the transform (has_aux=True of grad), and update after it."
        )


def has_content(array: Tensor) -> bool:
    """Whether `array` may be copied to NumPy. (A compiler breaks its program there.)"""
    return seen(array) or torch.compiler.is_compiling()


def native(array: Any) -> NDArray[Any]:
    """A copy of an array of another framework that PyTorch accepts: contiguous, of native byte order and a common dtype."""
    array = np.array(array, order="C")
    if array.dtype.kind == "V" or array.dtype.itemsize > 8:
        return array.astype(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def writes(tensor: Tensor) -> int | None:
    """How often PyTorch has written to a tensor; None for a tensor of inference mode, where it does not count."""
    return None if tensor.is_inference() else tensor._version


def without_gradients(call: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    """`call(*arguments, **options)` without recording gradients.

    `torch.no_grad` is written in Python: a signal's exception at a wrong moment would leave gradients switched off. Here each
    switch is a single call into C, inside the `try`.
    """
    if torch.compiler.is_compiling():
        with torch.no_grad():
            return call(*arguments, **options)
    before = torch.is_grad_enabled()
    try:
        torch._C._set_grad_enabled(False)
        return call(*arguments, **options)
    finally:
        torch._C._set_grad_enabled(before)


def without_autocast(array: Tensor) -> AbstractContextManager[object]:
    """A context without autocast, on the tensor's device. Autocast does not know the device meta."""
    if array.is_meta or not torch.is_autocast_enabled(array.device.type):
        return nullcontext()
    return torch.autocast(array.device.type, enabled=False)


def products_are_exact() -> bool:
    """Whether products on the CPU are exact in f32: neither autocast nor a lower precision is set."""
    return not torch.is_autocast_enabled("cpu") and _precision("cpu") in EXACT


def rounded(array: Tensor) -> bool:
    """Whether a product with this array may round f32 first, as `torch.set_float32_matmul_precision` allows.

    On a CPU one product is tried. While compiling, and on CUDA, where that would wait for the device, the setting decides.
    """
    if array.dtype != torch.float32 or array.is_meta:
        return False
    precision = _precision(array.device.type)
    if precision in EXACT:
        return False
    return traced() or array.is_cuda or _is_rounded(array.device.type, precision)


def _precision(device: str) -> str:
    """The precision that is set for products on this device."""
    backend = torch.backends.cuda if device == "cuda" else torch.backends.mkldnn
    return getattr(getattr(backend, "matmul", None), "fp32_precision", None) or torch.get_float32_matmul_precision()


_precision._dynamo_marked_constant = True  # type: ignore[attr-defined]  # a compiler asks once; it makes a new program if it changes


@cache
def _is_rounded(device: str, precision: str) -> bool:
    """Whether this device rounds at that precision: 1 + 2**-11 has more bits than bf16 or tf32 keep."""
    with torch.inference_mode(), torch.autocast(device, enabled=False):
        probe = torch.full((64, 64), 1 + 2.0**-11, dtype=torch.float32, device=device)
        return not torch.equal(probe @ torch.ones_like(probe), 64 * probe)
