"""A memory over the devices of a JAX mesh, here four that the CPU plays: it is the memory that one device has."""

import subprocess
import sys
from pathlib import Path

import pytest

LAWS_ON_A_MESH = """
    import jax, sys
    from raremem.adapters.mesh import MeshBackend
    from raremem.reference.laws import LAWS, run

    devices, names = int(sys.argv[1]), sys.argv[2:]
    backend = MeshBackend(jax.make_mesh((devices,), ("slots",), devices=jax.devices()[:devices]))
    for name in names or LAWS:
        if LAWS[name].runs_on(backend):
            run(LAWS[name], backend, 8, shrink=False)
            print(name, flush=True)
"""
KEYS_STAY = """
    import jax, numpy as np, raremem
    from raremem.adapters.mesh import MeshBackend

    backend = MeshBackend(jax.make_mesh((4,), ("slots",)))
    config = raremem.MemoryConfig(slots=4001, key_dim=32, neighbors=8)
    state = backend.init(config)
    rows = np.random.default_rng(0).normal(size=(6, 32)).astype(np.float32)
    spread = state.keys.sharding
    text = backend._query.lower(config, state, rows, np.arange(6, dtype=np.int32), np.ones(6, bool)).compile().as_text()
    for line in text.splitlines():
        assert not ("all-gather(" in line and "f32[4004,32]" in line), line
    for _ in range(3):
        state, _ = backend.update(config, state, rows, np.arange(6))
        assert state.keys.sharding == spread
        assert {shard.data.shape for shard in state.keys.addressable_shards} == {(1001, 32)}
    assert backend.query(config, state, rows).values[:, 0].tolist() == list(range(6))
    text = backend._forget.lower(config, state, None, np.arange(2, dtype=np.int32), None).compile().as_text()
    assert not any("all-gather(" in line and "f32[4004,32]" in line for line in text.splitlines()), text
    state, report = backend.forget(config, state, values=[0, 1])
    assert (int(report.count), state.keys.sharding) == (2, spread)
    assert backend.query(config, state, rows[2:]).values[:, 0].tolist() == list(range(2, 6))
"""
LOOKUPS_ARE_OF_THEIR_MEMORY = """
    import jax, numpy as np, raremem
    from raremem.adapters.mesh import MeshBackend

    backend = MeshBackend(jax.make_mesh((2,), ("slots",), devices=jax.devices()[:2]))
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
        assert "made on another memory" in str(error)
        print("told")
    with jax.transfer_guard_host_to_device("disallow_explicit"):
        assert backend.to_numpy(state)["keys"].shape == (9, 4)
"""
BATCH_IS_SPREAD = """
    import jax, numpy as np, raremem
    from jax.sharding import NamedSharding, PartitionSpec
    from raremem.adapters import jax as memory

    mesh = jax.sharding.Mesh(jax.devices(), ("batch",))
    config = raremem.MemoryConfig(slots=50, key_dim=16, neighbors=4)
    everywhere, spread = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))
    step = jax.jit(memory.update, static_argnums=0)
    together, alone = jax.device_put(memory.init(config), everywhere), memory.init(config)
    generator = np.random.default_rng(0)
    for _ in range(10):
        rows = generator.choice([-0.25, 0.25], (16, 16)).astype(np.float32)
        targets = generator.integers(0, 4, 16).astype(np.int32)
        together, mine = step(config, together, jax.device_put(rows, spread), jax.device_put(targets, spread))
        alone, theirs = step(config, alone, rows, targets)
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs))
    for name, array in memory.to_numpy(alone).items():
        np.testing.assert_array_equal(memory.to_numpy(together)[name], array)
"""


def run(source, *arguments):
    code = "\n".join(line.removeprefix("    ") for line in source.splitlines())
    environment = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "PATH": ""}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parent)


def test_a_lookup_is_of_its_memory_and_step_where_content_is_not_peeked_at():
    """Late, of a copy that went another way, and of another memory; and keys to NumPy go by no device."""
    result = run(LOOKUPS_ARE_OF_THEIR_MEMORY)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "told" in result.stdout


@pytest.mark.parametrize("devices", [2, 4])
def test_every_law_holds(devices):
    result = run(LAWS_ON_A_MESH, devices)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "update_agrees" in result.stdout


def test_that_check_can_fail():
    faulty = "    from raremem.search import contract\n    contract.NOTHING = 2.0\n" + LAWS_ON_A_MESH
    result = run(faulty, 2, "query_agrees")
    assert result.returncode != 0
    assert "AssertionError: query_agrees" in result.stderr


def test_keys_stay_where_they_are():
    result = run(KEYS_STAY)
    assert result.returncode == 0, result.stderr[-3000:]


def test_a_batch_over_devices_equals_one_device():
    result = run(BATCH_IS_SPREAD)
    assert result.returncode == 0, result.stderr[-3000:]


ROWS_OVER_A_MESH = """
    import contextlib, sys, jax, numpy as np, raremem
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    from raremem.adapters import jax as memory
    from raremem.adapters.mesh import MeshBackend

    kinds = tuple({"explicit": AxisType.Explicit, "auto": AxisType.Auto}[name] for name in sys.argv[1:3])
    mesh = jax.make_mesh((2, 2), ("data", "slots"), axis_types=kinds)
    config = raremem.MemoryConfig(slots=51, key_dim=16, neighbors=4)
    rows = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    targets, mask, embedding = np.arange(8, dtype=np.int32) % 4, np.arange(8) != 3, np.eye(4, 6, dtype=np.float32)

    def answers(backend, config, state, rows, targets, mask, embedding):
        def loss(rows):
            found = backend.query(config, state, rows, targets, mask)
            return found.loss.sum() + found.recall(embedding).sum(), found

        (_, found), gradient = jax.value_and_grad(loss, has_aux=True)(rows)
        step = lambda state, _: backend.update(config, state, rows, targets, mask)
        state, reports = jax.lax.scan(step, state, None, length=3)
        return found, gradient, reports, state

    def same(got, expected):
        for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(np.asarray(mine)[: len(theirs)] if theirs.ndim else mine, theirs, rtol=0, atol=1e-5)

    start = memory.to_numpy(memory.update(config, memory.init(config), rows[::-1].copy(), targets)[0])
    alone = (memory.from_numpy(config, start), rows, targets, mask, embedding)
    expected = jax.device_get(jax.jit(answers, static_argnums=(0, 1))(memory.backend, config, *alone))
    put = lambda array, *axes: jax.device_put(np.asarray(array), NamedSharding(mesh, P(*axes)))
    for around in (contextlib.nullcontext(), jax.set_mesh(mesh)) if sys.argv[3] == "set" else (contextlib.nullcontext(),):
        with around:
            spread = (*(put(array, "data") for array in alone[1:4]), put(embedding))
            for backend in (memory.backend, MeshBackend(mesh)):
                if backend is memory.backend:
                    state = jax.tree.map(put, memory.from_numpy(config, start))
                else:
                    state = backend.from_numpy(config, start)
                got = jax.jit(answers, static_argnums=(0, 1), donate_argnums=2)(backend, config, backend.copy(state), *spread)
                same(got, expected)
                assert got[0].values.sharding.spec[0] == "data" or kinds[0] == AxisType.Auto
                assert "slots" in str(got[-1].keys.sharding.spec) or backend is memory.backend
                same(backend.query(config, state, *spread[:3]), expected[0])
                same(backend.query(config, state, rows, targets, mask), expected[0])
    print("same")
"""
ANOTHER_MESH_IS_SET = """
    import jax, numpy as np, raremem
    from raremem.adapters.mesh import MeshBackend

    backend = MeshBackend(jax.sharding.Mesh(jax.devices(), ("slots",)))
    config = raremem.MemoryConfig(slots=51, key_dim=16, neighbors=4)
    rows, targets = np.eye(8, 16, dtype=np.float32), np.arange(8)
    with jax.set_mesh(jax.make_mesh((4,), ("batch",))):
        state, report = backend.update(config, backend.init(config), rows, targets)
        found = backend.query(config, state, jax.numpy.asarray(rows))
        assert (found.values[:, 0] * 2).tolist() == (2 * targets).tolist()
        assert np.asarray(report.written).all()
        try:
            jax.jit(lambda rows: backend.query(config, state, rows).values)(rows)
        except raremem.errors.DeviceError as error:
            assert "Make the MeshBackend with the mesh that is set" in str(error)
            print("told")
"""


@pytest.mark.parametrize("around", ["none", "set"])
@pytest.mark.parametrize("kinds", [("explicit", "explicit"), ("explicit", "auto"), ("auto", "explicit"), ("auto", "auto")])
def test_rows_over_axes_of_any_kind(kinds, around):
    result = run(ROWS_OVER_A_MESH, *kinds, around)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "same" in result.stdout


def test_another_mesh_may_be_set():
    result = run(ANOTHER_MESH_IS_SET)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "told" in result.stdout
