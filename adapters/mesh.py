"""A memory whose keys are spread over the devices of a JAX mesh: more slots than one device can hold.

Each device holds the keys of a range of slots, and the values, ages and hits of all (12 bytes a slot beside 4 * key_dim). A
query is searched by every device among its own keys, and the best of all are put together. All else is as for one device:
answers, gradients and writes equal those of a memory that is not sharded.

    backend = MeshBackend(jax.sharding.Mesh(jax.devices(), ("slots",)))
    state = backend.init(config)

Where only the batch is to be spread, nothing of this is needed: put the state on every device (`PartitionSpec()`), the rows on
some (`PartitionSpec("batch")`), and call the functions of `raremem.adapters.jax` inside `jax.jit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from raremem.adapters.jax import Array, JaxBackend, JaxPrimitives
from raremem.config import MemoryConfig
from raremem.primitives import Primitives
from raremem.search import nearest_of_shards
from raremem.state import NO_SLOT, MemoryState, PortableState, check_portable, from_portable


class MeshBackend(JaxBackend):
    """The functional interface over a mesh. Compiled; the state is donated to `update`.

    Args:
        mesh: the devices. (Axes are taken as automatic: what is not searched is spread by the compiler.)
        axis: of the mesh, over which slots are spread.
    """

    mode = "sharded"
    capabilities = frozenset({"gradients", "bfloat16"})

    def __init__(self, mesh: Mesh, axis: str = "slots") -> None:
        self.mesh, self.axis = Mesh(mesh.devices, mesh.axis_names), axis
        super().__init__(JaxPrimitives(), compiled=True, search=partial(_nearest, self.mesh, axis))

    def from_numpy(self, config: MemoryConfig, portable: Mapping[str, Any]) -> MemoryState:
        """See `Backend.from_numpy`. Keys are padded to as many rows as every device can have alike."""
        state = from_portable(check_portable(config, portable))
        keys = np.pad(state.keys, ((0, -config.slots % self.mesh.shape[self.axis]), (0, 0)))
        everywhere, spread = NamedSharding(self.mesh, _spec()), NamedSharding(self.mesh, _spec(self.axis, None))
        return MemoryState(jax.device_put(keys, spread), *(jax.device_put(np.array(array), everywhere) for array in state[1:]))

    def to_numpy(self, state: MemoryState) -> PortableState:
        return super().to_numpy(state._replace(keys=np.asarray(state.keys)[: len(state.values)]))


def _spec(*axes: str | None) -> PartitionSpec:
    return PartitionSpec(*axes)  # type: ignore[no-untyped-call]


def _nearest(
    mesh: Mesh, axis: str, p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int
) -> tuple[Array, Array | None]:
    """See `search.nearest`."""
    size = state.keys.shape[0] // mesh.shape[axis]
    values = jnp.pad(state.values, (0, len(state.keys) - len(state.values)), constant_values=NO_SLOT)

    def of_a_device(keys: Array, values: Array, queries: Array, targets: Array) -> tuple[Array, Array | None]:
        part, first = MemoryState(keys, values, values, values, state.step), jax.lax.axis_index(axis) * size
        return nearest_of_shards(p, part, first, queries, targets, k, partial(_gather, axis))

    none, rows = _spec(), _spec(axis)
    asked = jnp.zeros(len(queries), jnp.int32) if targets is None else targets
    found = jax.shard_map(
        of_a_device, mesh=mesh, in_specs=(_spec(axis, None), rows, none, none), out_specs=(none, none), check_vma=False
    )
    slots, best = found(state.keys, values, queries, asked)
    return slots, None if targets is None else best


def _gather(axis: str, scores: Array, slots: Array, k: int) -> tuple[Array, Array]:
    """See `search.Gather`."""
    return jax.lax.all_gather(scores, axis, axis=1, tiled=True), jax.lax.all_gather(slots, axis, axis=1, tiled=True)
