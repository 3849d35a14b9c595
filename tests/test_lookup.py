"""`Lookup.recall` and `Lookup.scores` on every backend, eager and compiled."""

import tracemalloc

import numpy as np
import pytest

import raremem
from raremem import MemoryConfig
from raremem.reference import tolerance
from raremem.reference.comparison import as_numpy, close

CONFIG = MemoryConfig(slots=6, key_dim=4, neighbors=3, softmax_temperature=2.0)


def test_recall_is_the_mean_of_rows_by_weight(raremem_mode):
    backend = raremem_mode.backend
    generator = np.random.default_rng(0)
    table = generator.normal(size=(5, 3)).astype(np.float32)
    state = backend.init(CONFIG)
    state, _ = backend.update(CONFIG, state, np.eye(2, 4, dtype=np.float32), np.array([1, 4], np.int32))
    queries = generator.normal(size=(3, 4)).astype(np.float32)
    queries[1] = np.nan
    found = backend.query(CONFIG, state, queries)
    recalled = as_numpy(found.recall(backend.primitives.asarray(table, found.weights)))
    weights, values = as_numpy(found.weights).astype(np.float64), as_numpy(found.values)
    for row in range(3):
        expected = sum((w * table[v] for w, v in zip(weights[row], values[row], strict=True) if v >= 0), np.zeros(3))
        close("recall", recalled[row], expected, tolerance.gamma(CONFIG.k + 1) * np.abs(table).max())
    assert not recalled[1].any()
    assert recalled[0].any()


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def found(torch):
    """An answer whose products with an embedding of whole numbers, and their sums, are exact."""
    backend = raremem.get_backend("torch")
    weights = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    values = torch.tensor([[3, 1, 3], [1, -1, -1], [-1, -1, -1]], dtype=torch.int32)
    return backend.query(CONFIG, backend.init(CONFIG), torch.ones(3, 4))._replace(weights=weights, values=values)


@pytest.mark.parametrize("compiled", [False, True])
def test_recall_is_differentiated_by_weights_and_by_rows_in_pytorch(torch, found, compiled):
    embedding = torch.nn.Parameter(torch.arange(8.0).reshape(4, 2))
    recall = torch.compile(type(found).recall, fullgraph=True) if compiled else type(found).recall
    recall(found, embedding).backward(torch.tensor([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]]))
    assert embedding.grad.tolist() == [[0, 0], [4.25, 8.5], [0, 0], [0.75, 1.5]]
    of_there = [[20.0, 8.0, 20.0], [32.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert (found.weights.grad * (found.values >= 0)).tolist() == of_there


def test_recall_can_be_mapped_and_takes_any_float_dtype_in_pytorch(torch, found):
    embedding = torch.arange(8.0).reshape(4, 2)
    expected = found.recall(embedding)
    tables = torch.stack([embedding, 2 * embedding])
    assert torch.func.vmap(found.recall)(tables).equal(torch.stack([expected, 2 * expected]))
    for dtype in (torch.bfloat16, torch.float64):
        recalled = found.recall(embedding.to(dtype))
        assert recalled.dtype == torch.promote_types(torch.float32, dtype)
        assert recalled.equal(expected.to(recalled.dtype))
    finer_than_bf16 = embedding + 2.0**-10
    with torch.autocast("cpu", torch.bfloat16):
        recalled = found.recall(finer_than_bf16)
    assert recalled.equal(found.recall(finer_than_bf16))


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_a_value_without_a_row_is_a_clear_error(name):
    backend = raremem.get_backend(name)
    state, _ = backend.update(CONFIG, backend.init(CONFIG), np.eye(1, 4, dtype=np.float32), np.array([5]))
    found = backend.query(CONFIG, state, np.eye(1, 4, dtype=np.float32))
    table = backend.primitives.asarray(np.ones((6, 3), np.float32), found.weights)
    found.recall(table)
    with pytest.raises(IndexError, match=r"\b5\b"):
        found.recall(table[:5])


def test_scores_add_up_the_weights_of_each_class(raremem_mode):
    backend = raremem_mode.backend
    rows = np.float32([[1, 0, 0, 0], [0.6, 0.8, 0, 0], [0, 1, 0, 0]])
    state, _ = backend.update(CONFIG, backend.init(CONFIG), rows, np.array([2, 7, 2], np.int32))
    found = backend.query(CONFIG, state, rows[:2], None, np.array([True, False]))
    weights, values = as_numpy(found.weights)[0], as_numpy(found.values)[0]
    scores = as_numpy(found.scores(8))
    close("scores", scores[0, [2, 7]], [weights[values == 2].sum(), weights[values == 7].sum()], tolerance.gamma(3))
    assert np.count_nonzero(scores) == 2
    assert as_numpy(found.scores(3))[0, 2] == scores[0, 2]


@pytest.mark.parametrize("compiled", [False, True])
def test_scores_are_differentiated_by_weights_in_pytorch(torch, found, compiled):
    scores = torch.compile(type(found).scores, fullgraph=True) if compiled else type(found).scores
    got = scores(found, 3)
    assert got.tolist() == [[0, 0.25, 0], [0, 1, 0], [0, 0, 0]]
    got.backward(torch.arange(9.0).reshape(3, 3) + 1)
    assert found.weights.grad.tolist() == [[0, 2, 0], [5, 0, 0], [0, 0, 0]]


def test_scores_can_be_mapped_in_pytorch(torch, found):
    mapped = torch.func.vmap(lambda weights: found._replace(weights=weights).scores(4))
    assert mapped(torch.stack([found.weights, 2 * found.weights])).equal(torch.stack([found.scores(4), 2 * found.scores(4)]))


def test_scores_in_jax_code_that_is_traced():
    jax = pytest.importorskip("jax")
    from raremem.adapters import jax as memory

    rows = np.float32([[1, 0, 0, 0], [0, 1, 0, 0]])
    state, _ = memory.update(CONFIG, memory.init(CONFIG), rows, np.array([2, 1]))
    found = memory.query(CONFIG, state, rows)
    np.testing.assert_allclose(jax.jit(lambda found: found.scores(3))(found), found.scores(3), rtol=0, atol=2e-7)
    each = jax.vmap(lambda row: memory.query(CONFIG, state, row[None]).scores(3)[0])(rows)
    np.testing.assert_allclose(each, found.scores(3), rtol=0, atol=2e-7)
    slope = jax.grad(lambda rows: memory.query(CONFIG, state, rows).scores(3)[0, 1])(jax.numpy.asarray(rows))
    assert slope[0, 1] > 0
    assert not slope[1].any()


def test_scores_of_many_classes_hold_no_array_of_neighbors_and_classes():
    backend, config = raremem.get_backend("numpy"), MemoryConfig(slots=200, key_dim=8, neighbors=100)
    rows = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    state, _ = backend.update(config, backend.init(config), rows, np.arange(200) * 4999)
    found = backend.query(config, state, rows[:2])
    tracemalloc.start()
    scores = found.scores(10**6)
    assert tracemalloc.get_traced_memory()[1] < 5 * scores.nbytes
    tracemalloc.stop()


def test_scores_of_arrays_that_nobody_knows():
    backend = raremem.get_backend("numpy")
    found = backend.query(CONFIG, backend.init(CONFIG), np.eye(1, 4, dtype=np.float32))
    with pytest.raises(raremem.DTypeError, match=r"arrays are of list; expected a type in raremem\.state\.backends_of"):
        found._replace(weights=found.weights.tolist()).scores(3)
