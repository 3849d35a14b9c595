"""The JAX backend: pure functions over a pytree.

`init`, `query`, `update`, `copy`, `to_numpy` and `from_numpy` of this module are pure: put them inside your own `jax.jit`,
`grad`, `vmap`, `lax.scan` or `shard_map`, with the config static and the state donated. `get_backend("jax")` gives the same
compiled, the state donated to `update`.

>>> import jax
>>> config = MemoryConfig(slots=100, key_dim=8)
>>> state = init(config)
>>> state, report = update(config, state, jax.numpy.eye(8), jax.numpy.arange(8))
>>> query(config, state, jax.numpy.eye(8)[:2]).values[:, 0].tolist()
[0, 1]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from raremem.adapters import jax_explicit as explicit
from raremem.adapters.jax_explicit import traced
from raremem.backend import ArrayBackend
from raremem.config import MemoryConfig
from raremem.errors import DeviceError, StateError
from raremem.primitives import Primitives
from raremem.search import Search, nearest
from raremem.state import Lookup, MemoryState, PortableState, UpdateReport, mean_of_rows, means_of_rows

Array = jax.Array
Carry = TypeVar("Carry")

_HIGHEST = jax.lax.Precision.HIGHEST
_TF32_X3 = jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3


class JaxPrimitives(Primitives):
    """The table for JAX."""

    name = "jax"
    in_place = False
    xp: Any = jnp

    def asarray(self, array: Any, like: Array) -> Array:
        both_pinned = all(isinstance(x, jax.Array) and not traced(x) and x.committed for x in (array, like))
        if both_pinned and array.devices() != like.devices():
            raise DeviceError(
                f"an input is on {array.devices()}; expected {like.devices()}, where the memory is. "
                "Move one of them with jax.device_put."
            )
        return _own(array)

    def to_numpy(self, array: Array) -> NDArray[Any]:
        return np.array(jax.device_get(array))

    def from_numpy(self, state: MemoryState) -> MemoryState:
        return MemoryState(*map(_own, state))

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
        """tf32 in three parts is as right as f32, and quicker where there are units for it."""
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

    def ascending(self, array: Array) -> Array:
        return jnp.sort(array, axis=1)

    def held(self, queries: Array) -> int:
        return super().held(queries) * (1 if jax.default_backend() == "cpu" else 128)

    def slice_rows(self, array: Array, start: Array | int, count: int) -> Array:
        return jax.lax.dynamic_slice_in_dim(array, start, count)

    def put_rows(self, array: Array, rows: Array, content: Array) -> Array:
        return array.at[rows].set(content)

    def loop(self, start: int, stop: int, body: Callable[[Any, Carry], Carry], carry: Carry) -> Carry:
        return carry if stop <= start else jax.lax.fori_loop(start, stop, body, carry)

    def compiled(self, query: Callable[..., Any], update: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
        return jax.jit(query, static_argnums=0), jax.jit(update, static_argnums=0, donate_argnums=1)


def _one_zero(scores: Array) -> Array:
    """JAX sorts -0.0 below 0.0; here they are equal."""
    return jnp.where(scores == 0, jnp.zeros_like(scores), scores)


@cache
def _has_tf32() -> bool:
    """Whether the first device is a GPU of NVIDIA that has units for it."""
    capability = str(getattr(jax.devices()[0], "compute_capability", ""))  # "9.0" of an H100, "gfx90a" of another maker's
    return capability[:1].isdigit() and float(capability) >= 8


def _own(array: Any) -> Array:
    """An array of JAX's; what is none yet is copied, and put where JAX does so by an explicit transfer."""
    return array if isinstance(array, jax.Array) else jax.device_put(np.array(array))


class JaxBackend(ArrayBackend):
    """`ArrayBackend` with gradients and vmap, whose arrays may be NumPy's, or on a mesh whose axes are explicit."""

    capabilities = frozenset({"gradients", "vmap", "bfloat16"})

    def __init__(self, primitives: Primitives, compiled: bool = False, search: Search = nearest) -> None:
        super().__init__(primitives, search=search)
        self.compiled = compiled
        self._query, self._update = explicit.query(self._query), explicit.update(self._update)
        if compiled:
            self._query, self._update = primitives.compiled(self._query, self._update)

    def query(
        self,
        config: MemoryConfig,
        state: MemoryState,
        queries: Any,
        targets: Any = None,
        mask: Any = None,
        *,
        strict: bool = False,
    ) -> Lookup:
        return super().query(config, usable_state(state), queries, targets, mask, strict=strict)

    def update(
        self,
        config: MemoryConfig,
        state: MemoryState,
        queries: Any,
        targets: Any,
        mask: Any = None,
        lookup: Lookup | None = None,
        *,
        strict: bool = False,
    ) -> tuple[MemoryState, UpdateReport]:
        lookup = None if lookup is None else usable_lookup(lookup)
        return super().update(config, usable_state(state), queries, targets, mask, lookup, strict=strict)

    def to_numpy(self, state: MemoryState) -> PortableState:
        return super().to_numpy(usable_state(state))

    def copy(self, state: MemoryState) -> MemoryState:
        return super().copy(usable_state(state))

    def gradient(
        self,
        config: MemoryConfig,
        state: MemoryState,
        queries: Any,
        targets: Any,
        mask: Any,
        of: Callable[[Lookup], Array],
        by: str = "queries",
    ) -> tuple[Lookup, Callable[[], Array]]:
        rows = jnp.asarray(queries)

        def answer(leaf: Array) -> tuple[Array, Lookup]:
            asked = (state, leaf) if by == "queries" else (state._replace(keys=leaf), rows)
            found = self.query(config, *asked, targets, mask)
            return jnp.sum(of(found)), found

        total, back, found = jax.vjp(answer, rows if by == "queries" else state.keys, has_aux=True)
        return found, lambda: back(jnp.ones_like(total))[0]

    def query_many(self, config: MemoryConfig, states: Sequence[MemoryState], queries: Any, targets: Any, mask: Any) -> Lookup:
        together = jax.tree.map(lambda *arrays: jnp.stack(arrays), *states)
        return jax.vmap(partial(self.query, config))(together, *map(jnp.asarray, (queries, targets, mask)))


def usable_state(state: MemoryState) -> MemoryState:
    """The state in arrays of JAX's, of the dtypes it should have.

    Raises:
        StateError: an array was donated, is none, or has another dtype.
    """
    if not isinstance(state, MemoryState):
        return state  # what is wrong with it is said where kinds are checked
    for name, array in state._asdict().items():
        if _donated(array):
            raise StateError(
                "the state was consumed by an update (its arrays were donated). Go on with the state that it returned, "
                "and keep an old one with copy, before the update."
            )
        expected = "float32" if name == "keys" else "int32"
        if not hasattr(array, "dtype") or array.dtype != expected:
            raise StateError(
                f"the state's {name} are {getattr(array, 'dtype', type(array).__name__)}; expected an array of {expected}. "
                "Leave the state out of what casts or splits a network's parameters."
            )
    return MemoryState(*map(_own, state))


def usable_lookup(lookup: Lookup) -> Lookup:
    """The lookup in arrays of JAX's.

    Raises:
        StateError: an array was donated.
    """
    if any(map(_donated, lookup)):
        raise StateError("the lookup was consumed by a compiled function (its arrays were donated). Look its rows up again.")
    return jax.tree.map(_own, lookup)


def _donated(array: Any) -> bool:
    return isinstance(array, jax.Array) and not traced(array) and array.is_deleted()


means_of_rows[jax.Array] = explicit.rows(mean_of_rows)


def default_device() -> str:
    """Where arrays go by default."""
    return str(jax.devices()[0])


backend = JaxBackend(JaxPrimitives())
compiled_backend = JaxBackend(JaxPrimitives(), compiled=True)
BACKENDS = {None: compiled_backend, False: backend, True: compiled_backend}

init = backend.init
query = backend.query
update = backend.update
copy = backend.copy
to_numpy = backend.to_numpy
from_numpy = backend.from_numpy
