"""JAX's table of primitives."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from raremem.adapters.jax.explicit import traced
from raremem.errors import DeviceError
from raremem.primitives import Carry, Primitives

Array = jax.Array

_HIGHEST = jax.lax.Precision.HIGHEST
_TF32_X3 = jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3


class JaxPrimitives(Primitives):
    """The table for JAX."""

    name = "jax"
    in_place = False
    xp: Any = jnp

    def asarray(self, array: Any, like: Array | None = None) -> Array:
        both_pinned = all(isinstance(x, jax.Array) and not traced(x) and x.committed for x in (array, like))
        if both_pinned and like is not None and array.devices() != like.devices():
            raise DeviceError(
                f"an input is on {array.devices()}; expected {like.devices()}, where the memory is. "
                "Move one of them with jax.device_put."
            )
        return as_jax(array)

    def to_numpy(self, array: Array) -> NDArray[Any]:
        return np.array(jax.device_get(array))

    def copy(self, array: Array) -> Array:
        return jnp.array(array)

    def peek(self, array: Any, wait: bool = False) -> NDArray[Any] | None:
        if isinstance(array, jax.Array):
            if traced(array):
                return None
            if not wait and (len(array.devices()) > 1 or any(device.platform != "cpu" for device in array.devices())):
                return None
        return np.asarray(jax.device_get(array))

    def identity(self, array: Array) -> Array | None:
        return None if traced(array) else array

    def cast(self, array: Array, dtype: str) -> Array:
        return array.astype(dtype)

    def constant(self, array: Array) -> Array:
        return jax.lax.stop_gradient(array)

    def arange(self, count: int, like: Array) -> Array:
        return jnp.arange(count, dtype=jnp.int32)

    def multiply(self, array: Array, factor: int) -> Array:
        return array * jnp.int32(factor)

    def power_of_two(self, array: Array) -> Array:
        bits = jax.lax.bitcast_convert_type(array, jnp.int32) & 0x7F800000
        return jax.lax.bitcast_convert_type(bits, jnp.float32)

    def inner(self, left: Array, right: Array) -> Array:
        """Products of three TF32 parts are as accurate as f32, and faster on a GPU that has TF32 units."""
        in_f32 = partial(jnp.matmul, precision=_HIGHEST)
        if not _has_tf32():
            return in_f32(left, right.T)
        return jax.lax.platform_dependent(left, right.T, cuda=partial(jnp.matmul, precision=_TF32_X3), default=in_f32)

    def score(self, queries: Array, keys: Array) -> Array:
        return jnp.matmul(keys, queries[:, :, None], precision=_HIGHEST)[:, :, 0]

    def top_k(self, scores: Array, k: int) -> tuple[Array, Array]:
        best, columns = jax.lax.top_k(_one_zero(scores), k)
        return best, columns

    def sort_order(self, scores: Array, slots: Array, k: int | None = None) -> Array:
        columns = jnp.broadcast_to(jnp.arange(scores.shape[1], dtype=jnp.int32), scores.shape)
        return jax.lax.sort((-_one_zero(scores), slots, columns), num_keys=2)[2][:, :k]

    def take_along(self, array: Array, columns: Array) -> Array:
        return jnp.take_along_axis(array, columns, axis=1)

    def sum_by_column(self, array: Array, columns: Array, count: int) -> Array:
        rows = jnp.arange(array.shape[0])[:, None]
        return jnp.zeros((array.shape[0], count), array.dtype).at[rows, columns].add(array)

    def slice_rows(self, array: Array, start: Array | int, count: int) -> Array:
        return jax.lax.dynamic_slice_in_dim(array, start, count)

    def put_rows(self, array: Array, rows: Array, content: Array) -> Array:
        return array.at[rows].set(content)

    def loop(self, start: int, stop: int, body: Callable[[Any, Carry], Carry], carry: Carry) -> Carry:
        return carry if stop <= start else jax.lax.fori_loop(start, stop, body, carry)


def _one_zero(scores: Array) -> Array:
    """Scores with 0.0 for -0.0: JAX sorts -0.0 below 0.0, and here they are equal."""
    return jnp.where(scores == 0, jnp.zeros_like(scores), scores)


@cache
def _has_tf32() -> bool:
    """Whether the first device is an NVIDIA GPU with TF32 units."""
    capability = str(getattr(jax.devices()[0], "compute_capability", ""))  # "9.0" of an H100, "gfx90a" of another maker's
    return capability[:1].isdigit() and float(capability) >= 8


def as_jax(array: Any) -> Array:
    """`array` as a JAX array. Another framework's is copied, by an explicit transfer to the default device."""
    return array if isinstance(array, jax.Array) else jax.device_put(np.array(array))
