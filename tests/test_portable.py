"""States from NumPy: whole numbers of any width, and what is refused."""

import numpy as np
import pytest

import raremem

CONFIG = raremem.MemoryConfig(slots=5, key_dim=4, neighbors=3)
WHOLE = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", ">i4", ">u2"]


def portable(**changed):
    filled = np.array([True, False, True, True, False])
    state = {
        "keys": np.where(filled[:, None], np.eye(5, 4) + np.eye(5, 4, -4), 0).astype(np.float32),
        "values": np.where(filled, [7, 0, 100, 0, 0], 0),
        "ages": np.where(filled, [3, 0, 0, 120, 0], 0),
        "filled": filled,
        "hits": np.where(filled, [0, 0, 127, 2, 0], 0),
        "step": 130,
    }
    return {**state, **changed}


def content(state):
    return {name: (np.asarray(entry).dtype, np.asarray(entry).tolist()) for name, entry in state.items()}


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("name", ["values", "ages", "hits"])
@pytest.mark.parametrize("backend", ["numpy", "torch", "jax", "reference"])
def test_whole_numbers_of_any_width_are_taken(backend, name, kind):
    """What stands in empty slots does not matter: all ones there, of which an unsigned dtype makes its largest number."""
    backend = raremem.get_backend(backend)
    given = portable()
    given[name] = np.where(given["filled"], given[name], -1 if "i" in kind and "u" not in kind else np.iinfo(kind).max)
    given[name] = given[name].astype(kind)
    found = backend.to_numpy(backend.from_numpy(CONFIG, given))
    expected = portable(values=np.array([7, -1, 100, 0, -1], np.int32))
    for entry in ("ages", "hits"):
        expected[entry] = expected[entry].astype(np.int32)
    assert content(found) == content(expected)


@pytest.mark.parametrize("kind", ["float16", "float64", ">f4", "longdouble"])
def test_keys_of_any_float_are_taken(kind):
    backend = raremem.get_backend("numpy")
    given = portable()
    given["keys"] = np.where(given["filled"][:, None], given["keys"].astype(kind), np.inf).astype(kind)
    with np.errstate(all="raise"):
        state = backend.from_numpy(CONFIG, given)
    assert content(backend.to_numpy(state))["keys"] == content(portable())["keys"]


@pytest.mark.parametrize("step", [130, np.uint32(130), np.int64(130), np.uint8(130), np.array(130), np.array(130, np.uint16)])
def test_a_step_of_any_kind_is_taken(step):
    backend = raremem.get_backend("numpy")
    found = backend.to_numpy(backend.from_numpy(CONFIG, portable(step=step)))["step"]
    assert found == 130
    assert type(found) is int


@pytest.mark.parametrize(
    "step", [-1, 2**32, np.int64(-1), np.uint64(2**32), 1.0, np.float32(1), True, np.bool_(True), None, "1"]
)
def test_what_is_no_step_is_refused(step):
    with pytest.raises(raremem.StateError, match=r"step is .*; expected a whole number in \[0, 4294967296\)"):
        raremem.get_backend("numpy").from_numpy(CONFIG, portable(step=step))


@pytest.mark.parametrize("step", [np.array([130]), np.array(1.5), np.array(True)])
def test_an_array_that_is_no_step_is_refused(step):
    with pytest.raises(raremem.StateError, match="expected a whole number"):
        raremem.get_backend("numpy").from_numpy(CONFIG, portable(step=step))


@pytest.mark.parametrize(
    ("name", "number", "most"),
    [("values", 2**31, 2**31 - 1), ("values", 2**64 - 1, 2**31 - 1), ("ages", 2**63, 2**31 - 1), ("hits", 128, 127)],
)
def test_numbers_beyond_what_is_held_are_refused_at_any_width(name, number, most):
    """Not wrapped: 2**64 - 1 is not -1, which says that a slot is empty."""
    given = portable()
    given[name] = given[name].astype(np.uint64)
    given[name][0] = number
    with pytest.raises(raremem.StateError, match=rf"{name} have {number} in slot 0; expected \[0, {most}\]"):
        raremem.get_backend("numpy").from_numpy(CONFIG, given)
