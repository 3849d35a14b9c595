"""What `test_mesh.py` runs in a process of its own, on four devices that the CPU plays: JAX takes their number as it starts.

    XLA_FLAGS=--xla_force_host_platform_device_count=4 python tests/mesh_cases.py

It prints a line of JSON for each case: its name, what it said, and the error that it raised, or none.
"""

import contextlib
import json
import tempfile
import traceback
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import raremem
from raremem.adapters import jax as memory
from raremem.adapters.jax.functional import JaxBackend
from raremem.adapters.jax.mesh import MeshBackend, MeshSearch
from raremem.reference.laws import LAWS, run

KINDS = {"explicit": AxisType.Explicit, "auto": AxisType.Auto}


def mesh_of(devices):
    return jax.make_mesh((devices,), ("slots",), devices=jax.devices()[:devices])


def laws_hold(devices):
    """In one size, but for laws of others: JAX makes other programs for each size and number of devices."""
    backend, held = MeshBackend(mesh_of(devices)), []
    for name, law in LAWS.items():
        if law.runs_on(backend):
            run(law, backend, 8, shrink=False, one_size=True)
            held.append(name)
    return held


class FirstPartOnly(MeshSearch):
    """Which hands out, for all parts, what the first device found."""

    def gather(self, state, scores, slots, k):
        every_scores, every_slots = super().gather(state, scores, slots, k)
        return every_scores[:, :k], every_slots[:, :k]


class FirstPartBackend(MeshBackend):
    """One that searches so."""

    def __init__(self, mesh):
        super().__init__(mesh)
        JaxBackend.__init__(self, searcher=FirstPartOnly(self.mesh, self.axis), compiled=True)


def a_law_is_broken():
    run(LAWS["query_agrees"], FirstPartBackend(mesh_of(2)), 8, shrink=False)


def keys_stay():
    backend = MeshBackend(mesh_of(4))
    config = raremem.MemoryConfig(slots=4001, key_dim=32, neighbors=8)
    state = backend.init(config)
    rows = np.random.default_rng(0).normal(size=(6, 32)).astype(np.float32)
    spread = state.keys.sharding
    given = state, rows, np.arange(6, dtype=np.int32), np.ones(6, bool)
    text = backend._query.lower(backend.primitives, config, *given).compile().as_text()
    for line in text.splitlines():
        assert not ("all-gather(" in line and "f32[4004,32]" in line), line
    for _ in range(3):
        state, _ = backend.update(config, state, rows, np.arange(6))
        assert state.keys.sharding == spread
        assert {shard.data.shape for shard in state.keys.addressable_shards} == {(1001, 32)}
    assert backend.query(config, state, rows).values[:, 0].tolist() == list(range(6))
    text = backend._forget.lower(config, state, None, np.arange(2, dtype=np.int32), None).compile().as_text()
    assert not [line for line in text.splitlines() if "all-gather(" in line and "f32[" in line], text
    state, report = backend.forget(config, state, values=[0, 1])
    assert (int(report.count), state.keys.sharding) == (2, spread)
    assert backend.query(config, state, rows[2:]).values[:, 0].tolist() == list(range(2, 6))


def lookups_are_of_their_memory():
    backend = MeshBackend(mesh_of(2))
    config = raremem.MemoryConfig(slots=9, key_dim=4, neighbors=2, age_noise=0)
    rows, targets = np.eye(4, dtype=np.float32), np.arange(4)
    state, _ = backend.update(config, backend.init(config), rows[:1], targets[:1])
    other, found = backend.copy(state), backend.query(config, state, rows[1:3])
    state, _ = backend.update(config, state, rows[1:3], targets[1:3])
    for lookup in (backend.query(config, other, rows[1:3]), found):
        state, report = backend.update(config, state, rows[1:3], targets[1:3], None, lookup)
        assert np.asarray(report.hit).all()
    stranger = backend.query(config, backend.init(config), rows)
    try:
        backend.update(config, state, rows, targets, None, stranger)
    except raremem.StateError as error:
        said = str(error)
    with jax.transfer_guard_host_to_device("disallow_explicit"):
        assert backend.to_numpy(state)["keys"].shape == (9, 4)
    return said


def states_of_others_are_refused():
    """A mesh of three pads ten slots to twelve. Slots that are no slots would be found where all else points away."""
    config = raremem.MemoryConfig(slots=10, key_dim=4, neighbors=3)
    rows, targets = np.abs(np.random.default_rng(0).normal(size=(10, 4))).astype(np.float32), np.arange(10)
    backends = memory.backend, MeshBackend(mesh_of(3))
    start = memory.to_numpy(memory.update(config, memory.init(config), rows, targets)[0])
    held = {backend: backend.from_numpy(config, start) for backend in backends}
    said = []
    for backend, other in (backends, backends[::-1]):
        for call, given in (
            (backend.query, (-rows,)),
            (backend.update, (rows, targets)),
            (partial(backend.forget, values=1), ()),
        ):
            try:
                call(config, held[other], *given)
            except raremem.StateError as error:
                said.append(str(error))
        taken = backend.from_numpy(config, other.to_numpy(held[other]))
        np.testing.assert_array_equal(backend.query(config, taken, -rows).slots, other.query(config, held[other], -rows).slots)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, str(number)) for number in range(2)]
        for path, state in zip(files, held.values(), strict=True):
            raremem.save(path, config, state)
        assert files[0].read_bytes() == files[1].read_bytes()
    return said


def rows_of_its_own():
    """An update by the very arrays of the state, which it donates."""
    config = raremem.MemoryConfig(slots=4, key_dim=4)
    for backend in (memory.backend, memory.compiled_backend, MeshBackend(mesh_of(2))):
        state, _ = backend.update(config, backend.init(config), np.eye(4, dtype=np.float32), np.arange(4))
        state, report = backend.update(config, state, state.keys, state.values)
        state, stored = backend.store(config, state, state.keys, state.values)
        assert np.asarray(report.hit).all()
        assert np.asarray(stored.hit).all()
        assert backend.to_numpy(state)["hits"].tolist() == [2] * 4


def batch_is_spread():
    mesh = jax.sharding.Mesh(jax.devices(), ("batch",))
    config = raremem.MemoryConfig(slots=50, key_dim=16, neighbors=4)
    everywhere, spread = NamedSharding(mesh, P()), NamedSharding(mesh, P("batch"))
    step = jax.jit(memory.update, static_argnums=0)
    together, alone = jax.device_put(memory.init(config), everywhere), memory.init(config)
    generator = np.random.default_rng(0)
    for _ in range(10):
        rows = generator.choice([-0.25, 0.25], (16, 16)).astype(np.float32)
        targets = generator.integers(0, 4, 16).astype(np.int32)
        together, mine = step(config, together, jax.device_put(rows, spread), jax.device_put(targets, spread))
        alone, theirs = step(config, alone, rows, targets)
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))
    for name, array in memory.to_numpy(alone).items():
        np.testing.assert_array_equal(memory.to_numpy(together)[name], array)


def answers(backend, config, state, rows, targets, mask, embedding):
    def loss(rows):
        found = backend.query(config, state, rows, targets, mask)
        return found.loss.sum() + found.recall(embedding).sum(), found

    def step(state, _):
        return backend.update(config, state, rows, targets, mask)

    (_, found), gradient = jax.value_and_grad(loss, has_aux=True)(rows)
    state, reports = jax.lax.scan(step, state, None, length=3)
    return found, gradient, reports, state


def same(got, expected):
    for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(mine)[: len(theirs)] if theirs.ndim else mine, theirs, rtol=0, atol=1e-5)


SMALL = raremem.MemoryConfig(slots=51, key_dim=16, neighbors=4)


@cache
def alone():
    """A memory in NumPy; rows, targets, a mask and an embedding; and what one device answers."""
    rows = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    targets, mask, embedding = np.arange(8, dtype=np.int32) % 4, np.arange(8) != 3, np.eye(4, 6, dtype=np.float32)
    start = memory.to_numpy(memory.update(SMALL, memory.init(SMALL), rows[::-1].copy(), targets)[0])
    given = (rows, targets, mask, embedding)
    expected = jax.jit(answers, static_argnums=(0, 1))(memory.backend, SMALL, memory.from_numpy(SMALL, start), *given)
    return start, given, jax.device_get(expected)


def rows_over_axes(around, *kinds):
    mesh = jax.make_mesh((2, 2), ("data", "slots"), axis_types=tuple(KINDS[kind] for kind in kinds))
    start, given, expected = alone()

    def put(array, *axes):
        return jax.device_put(np.asarray(array), NamedSharding(mesh, P(*axes)))

    with jax.set_mesh(mesh) if around == "set" else contextlib.nullcontext():
        spread = (*(put(array, "data") for array in given[:3]), put(given[3]))
        for backend in (memory.backend, MeshBackend(mesh)):
            if backend is memory.backend:
                state = jax.tree.map(put, memory.from_numpy(SMALL, start))
            else:
                state = backend.from_numpy(SMALL, start)
            got = jax.jit(answers, static_argnums=(0, 1), donate_argnums=2)(backend, SMALL, backend.copy(state), *spread)
            same(got, expected)
            assert got[0].values.sharding.spec[0] == "data" or kinds[0] == "auto"
            assert "slots" in str(got[-1].keys.sharding.spec) or backend is memory.backend
            same(backend.query(SMALL, state, *spread[:3]), expected[0])
            same(backend.query(SMALL, state, *given[:3]), expected[0])


def another_mesh_is_set():
    backend, config = MeshBackend(jax.sharding.Mesh(jax.devices(), ("slots",))), SMALL
    rows, targets = np.eye(8, 16, dtype=np.float32), np.arange(8)
    with jax.set_mesh(jax.make_mesh((4,), ("batch",))):
        state, report = backend.update(config, backend.init(config), rows, targets)
        found = backend.query(config, state, jax.numpy.asarray(rows))
        assert (found.values[:, 0] * 2).tolist() == (2 * targets).tolist()
        assert np.asarray(report.written).all()
        try:
            jax.jit(lambda rows: backend.query(config, state, rows).values)(rows)
        except raremem.errors.DeviceError as error:
            return str(error)


CASES = [(laws_hold, 2), (laws_hold, 4), (a_law_is_broken,), (keys_stay,), (lookups_are_of_their_memory,), (batch_is_spread,)]
CASES += [(states_of_others_are_refused,), (rows_of_its_own,)]
CASES += [(rows_over_axes, around, one, other) for around in ("none", "set") for one in KINDS for other in KINDS]
CASES += [(another_mesh_is_set,)]

if __name__ == "__main__":
    for case, *arguments in CASES:
        said = error = None
        try:
            said = case(*arguments)
        except Exception:
            error = traceback.format_exc()
        print(json.dumps([" ".join(map(str, (case.__name__, *arguments))), said, error]), flush=True)
        jax.clear_caches()  # without, 2.8 GB in the end
