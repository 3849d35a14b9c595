"""The traces of the original authors' code, step by step, on every backend and on the oracle."""

import os
from pathlib import Path

import numpy as np
import pytest

import raremem
from raremem.reference.comparison import as_numpy

GOLDEN = Path(os.environ.get("RAREMEM_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the original authors' traces are not at {GOLDEN}; set RAREMEM_GOLDEN")
@pytest.mark.parametrize("name", ["reference", "numpy", "torch", "jax"])
@pytest.mark.parametrize("trace", ["online_full_k", "online_small_k"])
def test_the_original_code_is_reproduced(name, trace):
    backend = raremem.get_backend(name)
    golden = np.load(GOLDEN / f"{trace}.npz")
    slots, key_dim = golden["keys0"].shape
    config = raremem.MemoryConfig(
        slots=slots,
        key_dim=key_dim,
        neighbors=int(golden["k"]),
        margin=float(golden["margin"]),
        softmax_temperature=float(golden["softmax_temperature"]),
        age_noise=0,
    )
    start = {"keys": golden["keys0"], "values": golden["values0"], "ages": golden["ages0"].astype(np.int32)}
    state = backend.from_numpy(config, {**start, "filled": np.ones(slots, np.bool_), "step": 0})
    for step in range(len(golden["queries"])):
        batch = golden["queries"][step], golden["targets"][step]
        found = backend.query(config, state, *batch)
        state, _ = backend.update(config, state, *batch)
        assert as_numpy(found.values)[0, 0] == golden["value"][step, 0]
        if golden["comparable"][step]:
            loss = golden["loss"][step] + golden["margin"]
            np.testing.assert_allclose(as_numpy(found.loss)[0], loss, rtol=0, atol=1e-5)
        weights = as_numpy(found.weights)[0, :-1]
        np.testing.assert_allclose(weights / weights.sum(), golden["softmax"][step, 0], rtol=0, atol=1e-5)
        after = backend.to_numpy(state)
        np.testing.assert_allclose(after["keys"], golden["keys"][step], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(after["values"], golden["values"][step])
        np.testing.assert_array_equal(after["ages"], golden["ages"][step])
