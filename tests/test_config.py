"""Configs and states that cannot be are refused, with what arrived and what was expected."""

import dataclasses
import pickle

import numpy as np
import pytest

import raremem

CONFIG = raremem.MemoryConfig(slots=4, key_dim=2)
BACKEND = raremem.get_backend("numpy")


@pytest.mark.parametrize(
    "field",
    [
        {"slots": 0}, {"slots": 2.5}, {"slots": True}, {"key_dim": -1}, {"neighbors": 0}, {"margin": -0.1},
        {"margin": float("nan")}, {"softmax_temperature": float("inf")}, {"age_noise": -1}, {"seed": 2**32}, {"seed": "0"},
        {"loss": "hinge"}, {"evict": "newest"},
    ],
)  # fmt: skip
def test_config_out_of_range(field):
    with pytest.raises(raremem.ConfigError, match=r"expected (a|one of)"):
        raremem.MemoryConfig(**field)


def test_config_is_frozen_hashable_and_takes_numpy_numbers():
    assert raremem.MemoryConfig(slots=np.int64(4), key_dim=2, margin=np.float32(0.5)).slots == 4
    assert hash(CONFIG) == hash(pickle.loads(pickle.dumps(CONFIG)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONFIG.slots = 5


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"keys": np.zeros((3, 2), np.float32)}, "keys has shape"),
        ({"keys": np.full((4, 2), np.nan, np.float32)}, "not a finite unit vector"),
        ({"values": np.array([0, -3, 0, 0], np.int32)}, "values reach"),
        ({"ages": np.array([0, -3, 0, 0], np.int32)}, "ages reach"),
        ({"hits": np.array([0, 128, 0, 0], np.int32)}, "hits reach"),
        ({"filled": np.ones(4, np.int32)}, "filled has shape"),
        ({"step": -1}, "step is -1"),
        ({"step": 1.5}, "step is 1.5"),
    ],
)
@pytest.mark.parametrize("name", ["reference", "numpy"])
def test_states_that_cannot_be(entry, message, name):
    good = {
        "keys": np.tile(np.float32([1, 0]), (4, 1)),
        "values": np.arange(4, dtype=np.int32),
        "ages": np.zeros(4, np.int32),
        "filled": np.ones(4, np.bool_),
        "step": 7,
    }
    backend = raremem.get_backend(name)
    backend.from_numpy(CONFIG, good)
    with pytest.raises(raremem.StateError, match=message):
        backend.from_numpy(CONFIG, {**good, **entry})
    with pytest.raises(raremem.StateError, match="has no"):
        backend.from_numpy(CONFIG, {"keys": good["keys"]})


def test_a_backend_of_ones_own_by_name():
    assert raremem.get_backend("raremem.adapters.numpy:backend") is BACKEND
