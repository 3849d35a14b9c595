"""Meshes with explicit axes, the kind that `jax.make_mesh` makes.

On such a mesh the type of an array includes its sharding, and an operation whose result has no definite sharding is an error.
The search and the writes of a memory have such operations. So they run with automatic axes, where the compiler chooses. Only
their results have explicit shardings: the state its own, and arrays with an entry for each row that of the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from raremem.config import MemoryConfig
from raremem.primitives import Primitives
from raremem.state import Array, ForgetReport, Lookup, MemoryState, UpdateReport

KNOWN = hasattr(jax, "typeof") and hasattr(jax.sharding, "auto_axes")
"""Whether this JAX has explicit axes."""


def spec(*axes: Any) -> PartitionSpec:
    """`PartitionSpec(*axes)`, which has no type annotations."""
    return PartitionSpec(*axes)  # type: ignore[no-untyped-call]


def query(function: Callable[..., Lookup]) -> Callable[..., Lookup]:
    """`ArrayBackend._query` that also takes arrays with explicit shardings."""

    def wrapped(p: Primitives, config: MemoryConfig, state: MemoryState, *rows: Any) -> Lookup:
        def on(state: MemoryState, *rows: Any) -> Lookup:
            return function(p, config, state, *rows)

        return _automatic(on, _row_spec(rows), state, *rows)

    return wrapped


def update(function: Callable[..., tuple[MemoryState, UpdateReport]]) -> Callable[..., tuple[MemoryState, UpdateReport]]:
    """`ArrayBackend._update` that also takes arrays with explicit shardings."""

    def wrapped(p: Primitives, config: MemoryConfig, state: MemoryState, *rows: Any) -> tuple[MemoryState, UpdateReport]:
        def on(state: MemoryState, *rows: Any) -> tuple[MemoryState, UpdateReport]:
            return function(p, config, state, *rows)

        row, one = _row_spec(rows), spec()
        report = UpdateReport(slots=row, hit=row, written=row, rejected=one, dropped=one, evicted=one)
        return _automatic(on, (MemoryState(*map(_spec_of, state)), report), state, *rows)

    return wrapped


def forget(function: Callable[..., tuple[MemoryState, ForgetReport]]) -> Callable[..., tuple[MemoryState, ForgetReport]]:
    """`raremem.rules.forget.forget`, but for its table, for such arrays too."""

    def wrapped(config: MemoryConfig, state: MemoryState, *named: Any) -> tuple[MemoryState, ForgetReport]:
        def on(state: MemoryState, *named: Any) -> tuple[MemoryState, ForgetReport]:
            return function(config, state, *named)

        report = ForgetReport(forgotten=_spec_of(state.values), count=spec())
        return _automatic(on, (MemoryState(*map(_spec_of, state)), report), state, *named)

    return wrapped


def by_row(function: Callable[..., Array]) -> Callable[..., Array]:
    """`function` for arrays with explicit shardings too; its first argument and its result have an entry for each row."""
    return lambda *arrays: _automatic(function, _row_spec(arrays[:1]), *arrays)


def _automatic(function: Callable[..., Any], specs: Any, *arrays: Any) -> Any:
    """`function(*arrays)` with automatic axes. `specs`, a prefix of the tree of its results, are their shardings."""
    leaves = jax.tree.leaves(arrays)
    mesh = _mesh(leaves)
    if mesh is None:
        return function(*arrays)
    home = next((leaf.sharding.mesh for leaf in leaves if not traced(leaf) and _mesh_of(leaf).explicit_axes), None)
    if home is not None:
        everywhere = NamedSharding(home, spec())
        arrays = jax.tree.map(lambda leaf: jax.device_put(leaf, everywhere) if _is_elsewhere(leaf) else leaf, arrays)
    shardings = jax.tree.map(
        lambda some: NamedSharding(mesh, some), specs, is_leaf=lambda some: isinstance(some, PartitionSpec)
    )
    return jax.sharding.auto_axes(function, axes=mesh.explicit_axes, out_sharding=shardings)(*arrays)


def _mesh(leaves: list[Array]) -> Any:
    """The mesh with explicit axes that an array is on, or that is set; else None."""
    if not KNOWN:
        return None
    meshes = (*map(_mesh_of, leaves), jax.sharding.get_abstract_mesh())
    return next((mesh for mesh in meshes if mesh.explicit_axes), None)


def _mesh_of(array: Array) -> Any:
    return jax.typeof(array).sharding.mesh


def _is_elsewhere(array: Array) -> bool:
    """Whether it is a concrete array on no mesh."""
    return not traced(array) and _mesh_of(array).empty


def traced(array: Any) -> bool:
    """Whether it is a tracer, which has no content."""
    return isinstance(array, jax.core.Tracer)


def _spec_of(array: Array) -> PartitionSpec:
    return jax.typeof(array).sharding.spec if KNOWN else spec()


def _row_spec(arrays: Any) -> PartitionSpec:
    """The sharding of the rows: that of the first array whose rows are sharded."""
    specs = [_spec_of(array) for array in jax.tree.leaves(arrays)]
    return spec(next((axes[0] for axes in specs if axes and axes[0] is not None), None))
