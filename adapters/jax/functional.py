"""The functional interface in JAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from raremem.adapters.jax import explicit
from raremem.adapters.jax.explicit import traced
from raremem.adapters.jax.primitives import Array, JaxPrimitives, as_jax
from raremem.adapters.jax.search import JaxSearch
from raremem.backend import ArrayBackend
from raremem.config import MemoryConfig
from raremem.errors import StateError
from raremem.primitives import Primitives
from raremem.rules.plan import USUAL, UpdatePlan
from raremem.rules.scores import is_called, mean_of_rows, rows_of
from raremem.search.contract import Searcher
from raremem.state import (
    ForgetReport,
    Lookup,
    MemoryState,
    PortableState,
    UpdateReport,
    backends_of,
)
from raremem.validation import check_lookup


class JaxBackend(ArrayBackend):
    """`ArrayBackend` for JAX. It also takes NumPy arrays, and arrays on a mesh with explicit axes."""

    table = JaxPrimitives
    search = JaxSearch
    capabilities = frozenset({"gradients", "vmap", "bfloat16"})

    def __init__(
        self,
        primitives: Primitives | None = None,
        searcher: Searcher | None = None,
        *,
        compiled: bool = False,
        plan: UpdatePlan = USUAL,
    ) -> None:
        super().__init__(primitives, searcher, plan=plan)
        self.compiled = compiled
        self._query, self._update = explicit.query(self._query), explicit.update(self._update)
        self._forget = explicit.forget(self._forget)
        if compiled:
            self._query, self._update = self.compile(self._query, self._update)
            self._forget = jax.jit(self._forget, static_argnums=0, donate_argnums=1)

    def compile(self, query: Callable[..., Any], update: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
        return jax.jit(query, static_argnums=(0, 1)), jax.jit(update, static_argnums=(0, 1), donate_argnums=2)

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
        state, lookup = usable_state(state), None if lookup is None else usable_lookup(lookup)
        return super().update(config, state, *apart(state, (queries, targets, mask, lookup)), strict=strict)

    def forget(self, config: MemoryConfig, state: MemoryState, **named: Any) -> tuple[MemoryState, ForgetReport]:
        return super().forget(config, usable_state(state), **named)

    def store(
        self, config: MemoryConfig, state: MemoryState, queries: Any, targets: Any, *, batch_size: int | None = None
    ) -> tuple[MemoryState, UpdateReport]:
        return super().store(config, usable_state(state), queries, targets, batch_size=batch_size)

    def counts(self, state: MemoryState) -> dict[int, int]:
        return super().counts(usable_state(state))

    def _placed(self, state: MemoryState) -> MemoryState:
        """See `ArrayBackend._placed`. Each array is copied once more: on a CPU JAX may share memory with NumPy, if that is
        aligned to 64 bytes, and shared memory cannot be donated."""
        return MemoryState(*(self.primitives.copy(as_jax(array)) for array in state))

    def to_numpy(self, state: MemoryState) -> PortableState:
        state = usable_state(state)
        keys = jax.device_get(state.keys)[: len(state.values)]  # those of a mesh are padded, and too many for one device
        return super().to_numpy(state._replace(keys=keys))

    def copy(self, state: MemoryState) -> MemoryState:
        return super().copy(usable_state(state))

    def recall(self, weights: Array, values: Array, embedding: Any) -> Array:
        if is_called(embedding):
            return explicit.by_row(mean_of_rows)(weights, rows_of(self.primitives, embedding, values))
        return explicit.by_row(super().recall)(weights, values, embedding)

    def scores(self, weights: Array, values: Array, classes: int) -> Array:
        of_all = super().scores
        return explicit.by_row(lambda weights, values: of_all(weights, values, classes))(weights, values)

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
    """The state as JAX arrays.

    Raises:
        StateError: an entry was donated, is no array, or has another dtype than it should.
    """
    if not isinstance(state, MemoryState):
        return state  # `validation.check_kinds` refuses it
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
    return MemoryState(*map(as_jax, state))


def usable_lookup(lookup: Lookup) -> Lookup:
    """The lookup as JAX arrays.

    Raises:
        DTypeError: it is no lookup.
        StateError: an array was donated.
    """
    check_lookup(lookup)
    if any(map(_donated, lookup)):
        raise StateError("the lookup was consumed by a compiled function (its arrays were donated). Look its rows up again.")
    return jax.tree.map(as_jax, lookup)


def apart(state: MemoryState, given: Any) -> Any:
    """What is given beside a state, with copies of arrays that are the state's own: it is donated."""
    kept = state if isinstance(state, MemoryState) else ()
    return jax.tree.map(lambda array: jnp.array(array) if any(array is own for own in kept) else array, given)


def _donated(array: Any) -> bool:
    return isinstance(array, jax.Array) and not traced(array) and array.is_deleted()


def default_device() -> str:
    """The device of new arrays."""
    return str(jax.devices()[0])


backend = JaxBackend()
backends_of[jax.Array] = backend
compiled_backend = JaxBackend(compiled=True)
BACKENDS = {None: compiled_backend, False: backend, True: compiled_backend}
