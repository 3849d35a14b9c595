"""What JAX users expect of pure functions."""

import warnings
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raremem
from raremem.adapters import jax as memory
from raremem.adapters.jax import primitives
from raremem.reference.comparison import same_state

CONFIG = raremem.MemoryConfig(slots=40, key_dim=8, neighbors=5)
STEPS = 7


def batches(seed=0, rows=6):
    queries = jax.random.normal(jax.random.key(seed), (STEPS, rows, 8))
    return queries, jax.random.randint(jax.random.key(seed + 1), (STEPS, rows), 0, 4)


def after(seed=0, state=None):
    state = memory.init(CONFIG) if state is None else state
    for queries, targets in zip(*batches(seed), strict=True):
        state, _ = memory.update(CONFIG, state, queries, targets)
    return state


def same_but_for_rounding(got, expected):
    """Equal, with keys within the tolerance of programs that a compiler may order differently."""
    np.testing.assert_allclose(got["keys"], expected["keys"], rtol=0, atol=1e-6)
    same_state({**got, "keys": expected["keys"]}, expected)


def test_scan_is_the_loop():
    def step(state, batch):
        state, report = memory.update(CONFIG, state, *batch)
        return state, report.slots

    state, _ = jax.lax.scan(step, memory.init(CONFIG), batches())
    same_but_for_rounding(memory.to_numpy(state), memory.to_numpy(after()))


def test_vmap_is_many_memories():
    seeds = [3, 5, 7]
    states = jax.tree.map(lambda *arrays: jnp.stack(arrays), *(memory.init(CONFIG) for _ in seeds))
    queries, targets = (jnp.stack(parts) for parts in zip(*(batches(seed) for seed in seeds), strict=True))
    update = jax.vmap(lambda state, q, t: memory.update(CONFIG, state, q, t)[0])
    for place in range(STEPS):
        states = update(states, queries[:, place], targets[:, place])
    for place, seed in enumerate(seeds):
        one = jax.tree.map(lambda array, place=place: array[place], states)
        same_but_for_rounding(memory.to_numpy(one), memory.to_numpy(after(seed)))


def test_vmapped_gradient_is_each_ones_gradient():
    state = after()
    queries, targets = (part[:3] for part in batches(9))

    def loss(rows, labels):
        return memory.query(CONFIG, state, rows, labels).loss.sum()

    together = jax.vmap(jax.grad(loss))(queries, targets)
    apart = jnp.stack([jax.grad(loss)(q, t) for q, t in zip(queries, targets, strict=True)])
    np.testing.assert_allclose(together, apart, rtol=0, atol=1e-5)


def test_one_program_serves_every_step():
    traces = []

    @partial(jax.jit, static_argnums=0, donate_argnums=1)
    def step(config, state, queries, targets):
        traces.append(1)
        out = memory.query(config, state, queries, targets)
        return memory.update(config, state, queries, targets, None, out)

    state = memory.init(CONFIG)
    for queries, targets in zip(*batches(), strict=True):
        state, _ = step(CONFIG, state, queries, targets)
    assert len(traces) == 1


def test_that_test_can_fail():
    traces = []

    @partial(jax.jit, static_argnums=0)
    def step(config, queries):
        traces.append(1)
        return memory.query(config, memory.init(config), queries).values

    for rows in (3, 4):
        step(CONFIG, jnp.ones((rows, 8)))
    assert len(traces) == 2


def test_compiled_backend_does_not_compile_again():
    backend = raremem.get_backend("jax", compiled=True)
    state = backend.init(CONFIG)
    sizes = []
    for queries, targets in zip(*batches(), strict=True):
        state, _ = backend.update(CONFIG, state, queries, targets)
        sizes.append(backend._update._cache_size())
    assert len(set(sizes)) == 1


def aligned(array):
    """A copy that begins at a multiple of 64 bytes: such memory JAX takes for its own array as it is."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copied = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copied[...] = array
    return copied


def test_donated_state_is_reused_in_place(monkeypatch):
    backend = raremem.get_backend("jax", compiled=True)
    monkeypatch.setattr(primitives, "np", SimpleNamespace(array=aligned))
    state = backend.init(CONFIG)
    monkeypatch.undo()
    place = state.keys.unsafe_buffer_pointer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new, _ = backend.update(CONFIG, state, *(part[0] for part in batches()))
    assert state.keys.is_deleted()
    assert new.keys.unsafe_buffer_pointer() == place


@pytest.mark.parametrize("k", [1, 5])
def test_a_step_of_training_does_not_copy_the_memory(k):
    """XLA writes in place only what nothing reads later: all that is read of the keys has to come before the update."""
    config = raremem.MemoryConfig(slots=20_000, key_dim=64, neighbors=k)

    def loss(queries, state, targets):
        out = memory.query(config, state, queries, targets)
        return out.loss.mean(), out

    @partial(jax.jit, donate_argnums=0)
    def step(state, queries, targets):
        (_, out), gradient = jax.value_and_grad(loss, has_aux=True)(queries, state, targets)
        return memory.update(config, state, out.queries, targets, lookup=out)[0], gradient

    state = memory.init(config)
    program = step.lower(state, jnp.ones((4, 64)), jnp.zeros(4, jnp.int32)).compile()
    assert not [line for line in program.as_text().splitlines() if " copy(" in line and "f32[20000,64]" in line]


def test_gradient_is_none_for_rows_that_do_not_count():
    state = after()
    rows = jnp.array(batches(9)[0][0]).at[0].set(jnp.nan).at[1].set(0.0)
    mask = jnp.array([True, True, False, True, True, True])
    gradient = jax.jit(jax.grad(lambda q: memory.query(CONFIG, state, q, batches(9)[1][0], mask).loss.sum()))(rows)
    assert not np.isnan(gradient).any()
    assert not gradient[:3].any()


def test_targets_out_of_range_are_rejected_in_a_trace():
    state = after()
    queries, targets = (part[0] for part in batches(9))
    found = jax.jit(partial(memory.query, CONFIG))(state, queries, targets.at[2].set(-1))
    assert np.flatnonzero(found.rejected).tolist() == [2]
    assert not found.found[2]
    assert found.loss[2] == 0


def test_strict_cannot_be_traced():
    with pytest.raises(raremem.RejectedRowsError, match="traced"):
        jax.jit(lambda q: memory.query(CONFIG, after(), q, strict=True).values)(jnp.ones((2, 8)))


def test_flax_module_is_the_functional_interface():
    from flax import nnx

    from raremem.adapters.flax import Memory, MemoryVariable

    module = Memory(CONFIG)

    @nnx.jit
    def step(module, queries, targets):
        out = module(queries, targets)
        module.update(out)
        return out.loss

    for queries, targets in zip(*batches(), strict=True):
        step(module, queries, targets)
    same_but_for_rounding(memory.to_numpy(module.state), memory.to_numpy(after()))
    assert not jax.tree.leaves(nnx.state(module, nnx.Param))
    assert len(jax.tree.leaves(nnx.state(module, MemoryVariable))) == len(raremem.MemoryState._fields)


def test_flax_loss_trains_what_comes_before():
    from flax import nnx

    from raremem.adapters.flax import Memory

    class Network(nnx.Module):
        def __init__(self):
            self.linear, self.memory = nnx.Linear(8, 8, rngs=nnx.Rngs(0)), Memory(CONFIG)

    network = Network()
    for queries, targets in zip(*batches(), strict=True):
        network.memory.update(network.memory(network.linear(queries), targets))

    @nnx.value_and_grad
    def loss(network):
        return network.memory(network.linear(batches(9)[0][0]), batches(9)[1][0]).loss.mean()

    _, gradients = loss(network)
    assert jnp.abs(jax.tree.leaves(gradients)[0]).sum() > 0


@pytest.mark.parametrize("has_tf32", [True, False])
def test_products_are_in_tf32_where_there_are_units_for_it(monkeypatch, has_tf32):
    """Of a program for NVIDIA's GPUs; one for the CPU of the same machine has f32."""
    monkeypatch.setattr(primitives, "_has_tf32", lambda: has_tf32)
    query = jax.jit(lambda state, queries: memory.query(CONFIG, state, queries).slots)
    traced = query.trace(memory.init(CONFIG), jnp.ones((3, 8)))

    def text(platform):
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert ("tf32" in text("cuda")) == has_tf32
    assert "tf32" not in text("cpu")


def test_units_for_tf32_are_known_by_the_device(monkeypatch):
    class Device:
        def __init__(self, **attributes):
            vars(self).update(attributes)

    devices = {Device(compute_capability="9.0"): True, Device(compute_capability="7.5"): False}
    devices |= {Device(compute_capability="gfx90a"): False, Device(): False}
    for device, expected in devices.items():
        monkeypatch.setattr(jax, "devices", lambda device=device: [device])
        assert primitives._has_tf32.__wrapped__() == expected
