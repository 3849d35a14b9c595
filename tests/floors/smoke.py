"""Every backend and extra, once, at the lowest versions that pyproject.toml declares. `make floors` installs and runs it;
`make test` does not collect it, since there the versions are others."""

import os
import platform
from importlib.metadata import version

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from lowest import lowest

import raremem
from raremem.reference.laws import LAWS, run

CONFIG = raremem.MemoryConfig(slots=12, key_dim=8)
QUERIES, TARGETS = np.eye(8, dtype=np.float32), np.arange(8)
RUN = (
    *("setuptools", "numpy", "safetensors", "torch", "jax", "flax", "equinox", "orbax-checkpoint", "annoy", "faiss-cpu"),
    *("hnswlib", "matplotlib", "tqdm", "pillow", "optax", "tokenizers", "sacrebleu", "pooch", "polib", "hypothesis", "pytest"),
)
LAWS_TRIED = ("query_agrees", "update_agrees", "gradient_agrees", "recall_is_the_mean_by_weight", "a_memory_lives")


@pytest.mark.parametrize("package", RUN)
def test_its_lowest_version_is_here(package, capsys):
    here, declared = version(package), lowest()[package]
    with capsys.disabled():
        print(f"\n{package} {here} (declared >={declared}), Python {platform.python_version()} ", end="")
    assert numbers(here) == numbers(declared)


def numbers(text):
    """1.0 is 1, and 2.6.0+cpu is 2.6."""
    parts = [int(part) if part.isdigit() else part for part in text.partition("+")[0].split(".")]
    while parts[-1] == 0:
        parts.pop()
    return parts


@pytest.fixture(scope="module", autouse=True)
def one_rank(tmp_path_factory):
    meeting = tmp_path_factory.mktemp("rank") / "meeting"
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def backend(name):
    kind, _, mode = name.partition("-")
    if name == "torch-sharded":
        from raremem.adapters.sharded import ShardedBackend

        return ShardedBackend()
    if mode.startswith("mesh"):
        from raremem.adapters.mesh import MeshBackend

        axis_type = jax.sharding.AxisType.Explicit if mode == "mesh explicit" else jax.sharding.AxisType.Auto
        return MeshBackend(jax.make_mesh((2,), ("slots",), axis_types=(axis_type,)))
    return raremem.get_backend(kind, compiled=mode == "compiled")


BACKENDS = (
    *("reference-eager", "numpy-eager", "torch-eager", "torch-compiled", "torch-sharded"),
    *("jax-eager", "jax-compiled", "jax-mesh", "jax-mesh explicit"),
)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_recalls_what_it_was_shown(name, tmp_path):
    there = backend(name)
    state, report = there.update(CONFIG, there.init(CONFIG), QUERIES, TARGETS)
    assert np.asarray(report.written).all()
    found = there.query(CONFIG, state, QUERIES, TARGETS)
    assert np.asarray(found.values)[:, 0].tolist() == TARGETS.tolist()
    raremem.save(tmp_path / "memory", CONFIG, state, backend=there)
    config, loaded = raremem.load(tmp_path / "memory", backend="numpy")
    assert config == CONFIG
    np.testing.assert_array_equal(loaded.values, there.to_numpy(state)["values"])


@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "reference-eager"])
@pytest.mark.parametrize("law", LAWS_TRIED)
def test_a_law_holds(name, law):
    there = backend(name)
    if not LAWS[law].runs_on(there):
        assert LAWS[law].needs not in there.capabilities  # NumPy has no gradients
        return
    assert run(LAWS[law], there, 2, shrink=False) > 0


@pytest.mark.parametrize("compiled", [False, True])
def test_a_torch_module_learns(compiled, tmp_path):
    from raremem.adapters.torch import Memory

    memory, linear = Memory(CONFIG, query_dim=6), torch.nn.Linear(6, 6)
    look_up = torch.compile(memory, fullgraph=True) if compiled else memory
    rows, targets = torch.eye(6), torch.arange(6)
    for _ in range(2):
        out = look_up(linear(rows), targets)
        loss = out.loss.mean() + out.recall(torch.eye(6)).sum()
        loss.backward()
        memory.update(out)
    assert memory(linear(rows)).values[:, 0].tolist() == targets.tolist()
    assert torch.isfinite(linear.weight.grad).all()
    torch.save(memory.state_dict(), tmp_path / "memory.pt")
    again = Memory(CONFIG, query_dim=6)
    again.load_state_dict(torch.load(tmp_path / "memory.pt"))
    torch.testing.assert_close(again(linear(rows)).similarities, memory(linear(rows)).similarities)


def test_torch_maps_memories():
    there = backend("torch-eager")
    states = [there.update(CONFIG, there.init(CONFIG), QUERIES, TARGETS + first)[0] for first in (0, 1)]
    found = there.query_many(CONFIG, states, np.stack([QUERIES] * 2), np.stack([TARGETS] * 2), np.ones((2, 8), bool))
    assert found.values[:, :, 0].tolist() == [TARGETS.tolist(), (TARGETS + 1).tolist()]


def test_torch_keeps_a_large_memory_on_one_rank_and_sharded():
    from raremem.adapters import distributed
    from raremem.adapters.sharded import ShardedMemory
    from raremem.adapters.torch import Memory

    config = raremem.MemoryConfig(slots=20_000, key_dim=16)
    one, copied, sharded = Memory(config), Memory(config), ShardedMemory(config)
    compiled = torch.compile(one, fullgraph=True)
    rows, targets = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)), torch.arange(64)
    for _ in range(3):
        one.update(one(rows, targets))
        distributed.update(copied, copied(rows, targets))
        sharded.update(sharded(rows, targets))
    for memory in (one, compiled, copied, sharded):
        assert memory(rows).values[:, 0].tolist() == targets.tolist()


@pytest.mark.parametrize("name", ["annoy", "faiss", "hnswlib"])
@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_an_index_finds_what_was_written(framework, name):
    config = raremem.MemoryConfig(slots=2000, key_dim=16, neighbors=4)
    index = raremem.get_index(name, background=False)
    there = raremem.get_backend(framework, index=index)
    rows = np.random.default_rng(0).normal(size=(1500, 16)).astype(np.float32)
    state, _ = there.update(config, there.init(config), rows, np.arange(1500))
    found = there.query(config, state, rows[:200])  # the first search builds it
    found = there.query(config, state, rows[:200])
    assert (np.asarray(found.values)[:, 0] == np.arange(200)).mean() > 0.95


@pytest.mark.parametrize("name", ["jax-compiled", "jax-mesh", "jax-mesh explicit"])
def test_jax_differentiates(name):
    there = backend(name)
    state, _ = there.update(CONFIG, there.init(CONFIG), QUERIES, TARGETS)
    gradient = jax.grad(lambda rows: there.query(CONFIG, state, rows, TARGETS[::-1]).loss.sum())(jnp.asarray(QUERIES + 0.3))
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


def test_jax_scans_inside_jit():
    from raremem.adapters import jax as memory

    def update(state, _):
        return memory.update(CONFIG, state, QUERIES, TARGETS)[0], None

    @jax.jit
    def live(state):
        return jax.lax.scan(update, state, None, length=3)[0]

    state = live(memory.init(CONFIG))
    assert memory.query(CONFIG, state, QUERIES).values[:, 0].tolist() == TARGETS.tolist()


def test_flax():
    from raremem.adapters.flax import Memory

    memory = Memory(CONFIG)
    memory.update(memory(QUERIES, TARGETS))
    assert memory(QUERIES).values[:, 0].tolist() == TARGETS.tolist()


def test_equinox_and_optax_train_beside_it():
    import equinox
    import optax

    from raremem.adapters import jax as memory

    linear, state = equinox.nn.Linear(8, 8, key=jax.random.PRNGKey(0)), memory.init(CONFIG)
    optimizer = optax.adamw(1e-3)
    moments = optimizer.init(equinox.filter(linear, equinox.is_inexact_array))

    @equinox.filter_jit
    def step(linear, moments, state):
        def loss(linear):
            out = memory.query(CONFIG, state, jax.vmap(linear)(QUERIES), TARGETS)
            return out.loss.mean(), out

        (_, out), gradients = equinox.filter_value_and_grad(loss, has_aux=True)(linear)
        updates, moments = optimizer.update(gradients, moments, equinox.filter(linear, equinox.is_inexact_array))
        state, _ = memory.update(CONFIG, state, out.queries, TARGETS, None, out)
        return equinox.apply_updates(linear, updates), moments, state

    for _ in range(3):
        linear, moments, state = step(linear, moments, state)
    assert memory.query(CONFIG, state, jax.vmap(linear)(QUERIES)).values[:, 0].tolist() == TARGETS.tolist()


def test_orbax_saves_a_state(tmp_path):
    from orbax.checkpoint import StandardCheckpointer

    there = backend("jax-compiled")
    state, _ = there.update(CONFIG, there.init(CONFIG), QUERIES, TARGETS)
    with StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        again = checkpointer.restore(tmp_path / "state", jax.eval_shape(lambda: there.init(CONFIG)))
    assert there.query(CONFIG, again, QUERIES).values[:, 0].tolist() == TARGETS.tolist()


def test_every_task_imports():
    """What the extra `bench` is for."""
    import importlib
    import pkgutil

    from raremem import benchmarks

    names = [module.name for module in pkgutil.walk_packages(benchmarks.__path__, "raremem.benchmarks.")]
    assert len(names) > 20
    for name in names:
        if not name.endswith("__main__"):
            importlib.import_module(name)
