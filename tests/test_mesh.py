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


@pytest.mark.parametrize("devices", [2, 4])
def test_every_law_holds(devices):
    result = run(LAWS_ON_A_MESH, devices)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "update_agrees" in result.stdout


def test_that_check_can_fail():
    faulty = "    from raremem import search\n    search.NOTHING = 2.0\n" + LAWS_ON_A_MESH
    result = run(faulty, 2, "query_agrees")
    assert result.returncode != 0
    assert "AssertionError: query_agrees" in result.stderr


def test_keys_stay_where_they_are():
    result = run(KEYS_STAY)
    assert result.returncode == 0, result.stderr[-3000:]


def test_a_batch_over_devices_equals_one_device():
    result = run(BATCH_IS_SPREAD)
    assert result.returncode == 0, result.stderr[-3000:]
