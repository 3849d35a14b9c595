"""A memory whose keys are sharded over the devices of a JAX mesh, for more slots than one device can hold.

Each device holds the keys of a range of slots, and the values, ages and hits of all slots (12 bytes a slot beside 4 * key_dim).
Each device searches its own keys, and the best of all devices are put together. Answers, gradients and writes equal those of a
memory that is not sharded.

    backend = MeshBackend(jax.sharding.Mesh(jax.devices(), ("slots",)))
    state = backend.init(config)

To shard the batch alone you do not need this module: replicate the state (`PartitionSpec()`), shard the rows
(`PartitionSpec("batch")`), and call the functions of `raremem.adapters.jax` inside `jax.jit`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from raremem.adapters.jax.explicit import KNOWN, spec, traced
from raremem.adapters.jax.functional import JaxBackend, apart, usable_lookup, usable_state
from raremem.adapters.jax.primitives import Array
from raremem.adapters.jax.search import JaxSearch
from raremem.config import MemoryConfig
from raremem.errors import DeviceError
from raremem.lineage import pass_on
from raremem.primitives import Primitives
from raremem.search.contract import Found, Searcher
from raremem.search.shards import Shards
from raremem.state import (
    NO_SLOT,
    ForgetReport,
    Lookup,
    MemoryState,
    UpdateReport,
)


class MeshBackend(JaxBackend):
    """The functional interface over a mesh. It is compiled, and `update` donates the state.

    Args:
        mesh: the devices. Its axes may be explicit or automatic. If another mesh is set (`jax.set_mesh`), inputs are moved to
            this mesh and answers to that one; inside `jax.jit` another mesh is an error.
        axis: the mesh axis over which slots are sharded.
    """

    capabilities = frozenset({"gradients", "bfloat16"})

    def __init__(self, mesh: Mesh, axis: str = "slots") -> None:
        self.mesh, self.axis = mesh if KNOWN else Mesh(mesh.devices, mesh.axis_names), axis
        super().__init__(searcher=MeshSearch(self.mesh, axis), compiled=True)

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
        state, given = usable_state(state), (queries, targets, mask)
        asked = state
        with self._around() as elsewhere:
            if elsewhere is not None:
                given = self._put(given)
            elif _nothing_around():
                asked, *given = jax.tree.map(self._untyped, (state, *given))
                pass_on(state.keys, asked.keys)
            found = super().query(config, asked, *given, strict=strict)
        if elsewhere is None:
            return found
        moved = jax.device_put(found, elsewhere)
        pass_on(found.slots, moved.slots)
        return moved

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
        with self._around() as elsewhere:
            given = apart(state, (queries, targets, mask, lookup if lookup is None else usable_lookup(lookup)))
            if elsewhere is not None or _nothing_around():
                given = self._put(given)
            if lookup is not None:
                pass_on(lookup.slots, given[-1].slots)
            state, report = super().update(config, state, *given, strict=strict)
        return state, report if elsewhere is None else jax.device_put(report, elsewhere)

    def store(
        self, config: MemoryConfig, state: MemoryState, queries: Any, targets: Any, *, batch_size: int | None = None
    ) -> tuple[MemoryState, UpdateReport]:
        return super().store(config, state, *self._put(apart(state, (queries, targets))), batch_size=batch_size)

    def forget(self, config: MemoryConfig, state: MemoryState, **named: Any) -> tuple[MemoryState, ForgetReport]:
        with self._around() as elsewhere:
            given = self._put(named) if elsewhere is not None or _nothing_around() else named
            state, report = super().forget(config, state, **given)
        return state, report if elsewhere is None else jax.device_put(report, elsewhere)

    def _placed(self, state: MemoryState) -> MemoryState:
        """See `ArrayBackend._placed`. Keys are padded so that every device holds equally many."""
        keys = np.pad(state.keys, ((0, self._rows(len(state.keys)) - len(state.keys)), (0, 0)))
        everywhere, spread = NamedSharding(self.mesh, spec()), NamedSharding(self.mesh, spec(self.axis, None))
        placed = jax.device_put(keys, spread), *(jax.device_put(np.array(array), everywhere) for array in state[1:])
        with self._around():
            return MemoryState(*map(self.primitives.copy, placed))  # see `JaxBackend._placed`

    def _rows(self, slots: int) -> int:
        return slots + -slots % int(self.mesh.shape[self.axis])

    def copy(self, state: MemoryState) -> MemoryState:
        with self._around():
            return super().copy(state)

    def gradient(self, config: MemoryConfig, state: MemoryState, *arguments: Any, **options: Any) -> Any:
        state = jax.tree.map(self._untyped, state) if _nothing_around() else state
        return super().gradient(config, state, *arguments, **options)

    @contextmanager
    def _around(self) -> Iterator[NamedSharding | None]:
        """A context in which this memory's mesh is set. It gives the replicated sharding of another that was set, if any."""
        around = jax.sharding.get_abstract_mesh() if KNOWN else None
        if around is None or around.empty or around == self.mesh.abstract_mesh:
            yield None
            return
        try:
            elsewhere = NamedSharding(jax.sharding.get_mesh(), spec())
            own = jax.set_mesh(self.mesh)
        except ValueError as error:  # inside jit
            raise DeviceError(
                f"the mesh around (jax.set_mesh) is {around}; expected {self.mesh.abstract_mesh}, which the memory is on. "
                "Make the MeshBackend with the mesh that is set, or call it outside jit and grad."
            ) from error
        with own:
            yield elsewhere

    def _untyped(self, array: Any) -> Any:
        """An array on this mesh as one with automatic axes. Outside jit and without a set mesh JAX differentiates no others."""
        if not isinstance(array, jax.Array) or traced(array):
            return array
        if not isinstance(array.sharding, NamedSharding) or array.sharding.mesh != self.mesh:
            return array
        return jax.device_put(array, NamedSharding(Mesh(self.mesh.devices, self.mesh.axis_names), array.sharding.spec))

    def _put(self, arrays: Any) -> Any:
        """JAX arrays replicated on this mesh. NumPy arrays stay, to be checked and copied first: JAX may read their memory
        later, when the user has written to it."""
        everywhere = NamedSharding(self.mesh, spec())
        return jax.tree.map(lambda array: jax.device_put(array, everywhere) if isinstance(array, jax.Array) else array, arrays)


def _nothing_around() -> bool:
    return not KNOWN or jax.sharding.get_abstract_mesh().empty


class MeshSearch(Shards):
    """The search of a mesh: every device searches its part.

    Args:
        mesh: the devices.
        axis: the mesh axis over which slots are sharded.
        part_search: the search of a device; default `JaxSearch()`.
    """

    def __init__(self, mesh: Mesh, axis: str, part_search: Searcher | None = None) -> None:
        super().__init__(JaxSearch() if part_search is None else part_search)
        self.mesh, self.axis = mesh, axis

    def find(self, p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int) -> Found:
        """See `Searcher.find`."""
        size = state.keys.shape[0] // self.mesh.shape[self.axis]
        values = jnp.pad(state.values, (0, len(state.keys) - len(state.values)), constant_values=NO_SLOT)

        def of_a_device(keys: Array, values: Array, queries: Array, targets: Array) -> Found:
            part, first = MemoryState(keys, values, values, values, state.step), jax.lax.axis_index(self.axis) * size
            return self.find_in_part(p, state, part, first, queries, targets, k)

        none, rows = spec(), spec(self.axis)
        asked = jnp.zeros(len(queries), jnp.int32) if targets is None else targets
        found = jax.shard_map(
            of_a_device,
            mesh=_mesh_for(self.mesh, state.keys),
            in_specs=(spec(self.axis, None), rows, none, none),
            out_specs=none,
            check_vma=False,
        )
        slots, best = found(state.keys, values, queries, asked)
        return Found(slots, None if targets is None else best)

    def gather(self, state: MemoryState, scores: Array, slots: Array, k: int) -> tuple[Array, Array]:
        """See `Shards.gather`."""
        every = partial(jax.lax.all_gather, axis_name=self.axis, axis=1, tiled=True)
        return every(scores), every(slots)


def _mesh_for(mesh: Mesh, keys: Array) -> Any:
    """The mesh that is set, else the memory's; with automatic axes if those of the keys are automatic."""
    if not _nothing_around():
        return jax.sharding.get_abstract_mesh()
    return mesh if not KNOWN or jax.typeof(keys).sharding.mesh == mesh.abstract_mesh else Mesh(mesh.devices, mesh.axis_names)
