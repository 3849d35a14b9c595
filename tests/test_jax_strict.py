"""JAX's strict modes, exported programs, and states that come from elsewhere or are gone: the same answer, or one line."""

import contextlib
import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import raremem
from raremem.adapters import jax as memory
from raremem.search.portable import PortableScan, ScanPlan

STRICT = {
    "jax_numpy_rank_promotion": "raise",
    "jax_numpy_dtype_promotion": "strict",
    "jax_debug_infs": True,
    "jax_debug_nans": True,
    "jax_enable_x64": True,
    "jax_check_tracer_leaks": True,
    "jax_default_matmul_precision": "bfloat16",
    "jax_transfer_guard": "disallow",
}
SLOTS = {"small": 20, "chunks": 300}
"""In `chunks`, slots are scanned in several chunks, and rows in several groups: their sizes are made small for it."""
ROWS = 20


@pytest.fixture(params=SLOTS)
def slots(request, monkeypatch):
    small = PortableScan(ScanPlan(held=1024, whole=64, chunk=64))
    for backend in (memory.backend, memory.compiled_backend):
        monkeypatch.setattr(backend.searcher, "on_cpu", small)
    jax.clear_caches()
    yield SLOTS[request.param]
    jax.clear_caches()


def configured(slots, **fields):
    return raremem.MemoryConfig(slots=slots, key_dim=8, neighbors=3, **fields)


def portable(slots, seed=0):
    """A memory in which one slot of three is empty."""
    keys = np.random.default_rng(seed).normal(size=(slots, 8)).astype(np.float32)
    filled = np.arange(slots) % 3 != 0
    keys = keys / np.linalg.norm(keys, axis=1, keepdims=True) * filled[:, None]
    values = np.where(filled, np.arange(slots) % 7, -1).astype(np.int32)
    return {"keys": keys, "values": values, "ages": np.zeros(slots, np.int32), "filled": filled, "step": 3}


def batch(rows=ROWS, seed=1):
    """Queries, of which one has no direction; targets, some of which the memory does not hold; and a mask."""
    queries = np.random.default_rng(seed).normal(size=(rows, 8)).astype(np.float32)
    queries[1] = 0
    return queries, (np.arange(rows) % 9).astype(np.int32), np.arange(rows) != 2


def all_of_it(config, state, queries, targets, mask, embedding):
    """What is asked of a memory in a step of training, with what comes of it."""

    def loss(queries):
        found = memory.query(config, state, queries, targets, mask)
        return found.loss.sum() + found.recall(embedding).sum(), found

    (_, found), gradient = jax.value_and_grad(loss, has_aux=True)(queries)
    bare = memory.query(config, state, queries)
    after, report = memory.update(config, state, queries, targets, mask, found)
    again, second = memory.update(config, after, queries, targets)
    return found, gradient, bare, after, report, again, second


def answers(slots, compiled=True):
    config = configured(slots)
    state, embedding = memory.from_numpy(config, portable(slots)), jax.device_put(np.eye(9, 4, dtype=np.float32))
    function = partial(all_of_it, config)
    arrays = jax.device_put((state, *batch(), embedding))
    return jax.device_get((jax.jit(function) if compiled else function)(*arrays))


def same(got, expected, atol=0.0):
    got, expected = jax.tree.leaves(got), jax.tree.leaves(expected)
    assert len(got) == len(expected)
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=atol)


@contextlib.contextmanager
def set_to(option, value):
    before = getattr(jax.config, option)
    jax.config.update(option, value)
    try:
        yield
    finally:
        jax.config.update(option, before)


def test_strict_modes_change_nothing(slots):
    expected = answers(slots)
    for option, value in STRICT.items():
        jax.clear_caches()
        with set_to(option, value):
            got = answers(slots)
        same(got, expected)


def test_without_jit_too(slots):
    expected = answers(slots)
    with set_to("jax_disable_jit", True), set_to("jax_numpy_rank_promotion", "raise"):
        same(answers(slots, compiled=False), expected, atol=1e-5)  # of gradients: 40 roundings


def test_no_infinity_is_in_the_program(slots):
    """What traps look for, wherever they look."""
    config = configured(slots)
    program = jax.make_jaxpr(partial(all_of_it, config))(memory.init(config), *batch(), jnp.ones((9, 4)))
    assert "inf" not in str(program)


def test_the_compiled_backend_transfers_only_what_it_is_told_to():
    config, backend = configured(20), raremem.get_backend("jax")
    with jax.transfer_guard("disallow"):
        state = backend.init(config)
        found = backend.query(config, state, *batch())
        state, report = backend.update(config, state, *batch(), found)
        state, _ = backend.update(config, state, *batch()[:2])
        assert backend.to_numpy(state)["step"] == 2
    assert jax.device_get(report.written).sum() == ROWS - 2


@pytest.mark.parametrize("compiled", [False, True])
def test_leaves_may_be_numpys(compiled):
    config, backend = configured(20), raremem.get_backend("jax", compiled=compiled)
    state = backend.from_numpy(config, portable(20))
    expected = jax.device_get(state)
    restored = pickle.loads(pickle.dumps(expected))
    assert all(isinstance(leaf, np.ndarray) for leaf in restored)
    found = backend.query(config, state, *batch())
    same(backend.query(config, restored, *batch()), found)
    same(backend.loss_gradient(config, restored, *batch()), backend.loss_gradient(config, state, *batch()))
    same(list(backend.to_numpy(restored).values())[:5], list(backend.to_numpy(state).values())[:5])
    same(backend.copy(restored), expected)
    lookup = pickle.loads(pickle.dumps(jax.device_get(found)))
    after, report = backend.update(config, restored, *batch(), lookup)
    same((after, report), backend.update(config, state, *batch(), found))
    same(restored, expected)


def test_leaves_may_be_numpys_in_a_trace():
    config, restored = configured(20), jax.device_get(memory.from_numpy(configured(20), portable(20)))
    got = jax.jit(lambda queries, targets, mask: memory.update(config, restored, queries, targets, mask))(*batch())
    same(got, memory.update(config, memory.from_numpy(config, portable(20)), *batch()), atol=1e-6)


def test_flax_restores_a_state():
    from flax import serialization

    config = configured(20)
    state = memory.from_numpy(config, portable(20))
    restored = serialization.from_bytes(memory.init(config), serialization.to_bytes(state))
    same(memory.update(config, restored, *batch()), memory.update(config, state, *batch()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state._replace(keys=state.keys.astype(jnp.bfloat16)), "keys are bfloat16; expected an array of float32"),
        (
            lambda state: state._replace(values=state.values.astype(jnp.float32)),
            "values are float32; expected an array of int32",
        ),
        (lambda state: state._replace(step=None), "step are NoneType; expected an array of int32"),
    ],
)
def test_a_state_that_was_cast_or_split_is_an_error(change, words):
    config = configured(20)
    state = change(memory.from_numpy(config, portable(20)))
    for call in (memory.query, memory.update):
        with pytest.raises(raremem.StateError, match=words):
            call(config, state, *batch())
    with pytest.raises(raremem.StateError, match=words):
        memory.to_numpy(state)


def test_a_donated_state_says_so(tmp_path):
    config, backend = configured(20), raremem.get_backend("jax")
    state = backend.from_numpy(config, portable(20))
    found = backend.query(config, state, *batch())
    after, _ = backend.update(config, state, *batch())
    uses = [
        lambda: backend.query(config, state, *batch()),
        lambda: backend.update(config, state, *batch()),
        lambda: backend.update(config, state, *batch(), found),
        lambda: backend.to_numpy(state),
        lambda: backend.copy(state),
        lambda: backend.loss_gradient(config, state, *batch()),
        lambda: memory.query(config, state, *batch()),
        lambda: raremem.save(tmp_path / "memory.safetensors", config, state),
    ]
    for use in uses:
        with pytest.raises(raremem.StateError, match=r"consumed by an update.*Go on with the state") as raised:
            use()
        assert "\n" not in str(raised.value)
    assert int(backend.to_numpy(after)["step"]) == 4


def test_a_donated_lookup_says_so():
    config = configured(20)
    state = memory.from_numpy(config, portable(20))
    found = memory.query(config, state, *batch())
    jax.jit(lambda lookup: jax.tree.map(lambda array: array, lookup), donate_argnums=0)(found)
    with pytest.raises(raremem.StateError, match="Look its rows up again"):
        memory.update(config, state, *batch(), found)


SYMBOLIC = {
    "query": lambda backend, config, state, queries, targets, mask: backend.query(config, state, queries),
    "with targets": lambda backend, config, state, queries, targets, mask: backend.query(config, state, queries, targets),
    "with all": lambda backend, config, state, *rows: backend.query(config, state, *rows),
    "update": lambda backend, config, state, *rows: backend.update(config, state, *rows),
    "a step": lambda backend, config, state, *rows: backend.update(config, state, *rows, backend.query(config, state, *rows)),
}


@pytest.mark.parametrize("name", SYMBOLIC)
def test_a_program_is_exported_for_batches_of_any_size(slots, name):
    from jax import export

    config, call = configured(slots), SYMBOLIC[name]
    state = memory.from_numpy(config, portable(slots))
    numpy = raremem.get_backend("numpy")
    (rows,) = export.symbolic_shape("rows")
    shapes = [jax.ShapeDtypeStruct((rows, *array.shape[1:]), array.dtype) for array in batch()]

    @jax.jit
    def leaves_of(leaves, *rows):
        return tuple(jax.tree.leaves(call(memory, config, raremem.MemoryState(*leaves), *rows)))

    program = export.deserialize(export.export(leaves_of)(tuple(state), *shapes).serialize())
    for count in (3, 40):
        expected = call(numpy, config, numpy.from_numpy(config, portable(slots)), *batch(count))
        same(program.call(tuple(state), *batch(count)), jax.tree.leaves(expected), atol=1e-5)  # of weights: 40 roundings
