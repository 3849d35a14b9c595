"""`Lookup.recall` on every backend, eager and compiled."""

import numpy as np

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
