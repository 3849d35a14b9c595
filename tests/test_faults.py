"""Each planted fault is caught by some law, and no law holds a fault that is not there."""

import contextlib
import dataclasses
from pathlib import Path

import numpy as np
import pytest

import raremem
from raremem.reference.faults import FAULTS, Fault, caught_by, planted, table
from raremem.reference.laws import LAWS, run
from raremem.reference.laws.registry import USUAL_TRACED
from raremem.search.live import LiveIndex, LivePlan
from raremem.state import backends_of


def named(name):
    return next(fault for fault in FAULTS if fault.name == name)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_caught(fault):
    examples = USUAL_TRACED if fault.compiled or fault.backend == "jax" else 30
    with contextlib.closing(caught_by(fault, examples)) as caught:  # a failure must not keep the fault in the code
        assert next(caught, None) == fault.law, "give the fault the name of the law that catches it"


def test_the_page_is_current():
    page = (Path(__file__).parents[1] / "docs" / "faults.md").read_text()
    assert page == table() + "\n", "run python -m raremem.reference.faults > docs/faults.md"


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_without_a_fault_nothing_is_caught(backend):
    no_fault = Fault("none", "raremem.rules.eviction", "EMPTY_PRIORITY = MAX_INT32", "EMPTY_PRIORITY = (MAX_INT32)", backend)
    assert list(caught_by(no_fault, examples=10)) == []


def test_a_fault_leaves_the_code_as_it_was():
    config = raremem.MemoryConfig(slots=4, key_dim=2)
    rows, targets = np.eye(2, dtype=np.float32), np.arange(2)
    for _ in range(2):
        backend = raremem.get_backend("numpy")
        state, _ = backend.update(config, backend.init(config), rows, targets)
        assert backend.to_numpy(state)["step"] == 1
        with planted(named("the value is not written")) as faulty:
            state, _ = faulty.update(config, faulty.init(config), rows, targets)
            assert not faulty.to_numpy(state)["filled"].any()


def test_a_fault_of_the_eager_search_is_one_of_compiled_pytorch_too():
    pytest.importorskip("torch")
    fault = dataclasses.replace(named("slots after the last whole block are left out"), backend="torch", compiled=True)
    with planted(fault) as backend, pytest.raises(AssertionError):
        run(LAWS["large_memory_agrees"], backend, 10, shrink=False)


def test_a_fault_in_an_adapter_leaves_its_operators():
    torch = pytest.importorskip("torch")
    raremem.get_backend("torch")
    operator = torch.ops.raremem.computed_before.default
    with planted(named("ties in no order")):
        pass
    assert torch.ops.raremem.computed_before.default is operator


def test_a_fault_in_an_adapter_leaves_the_backend_of_its_arrays():
    backend = raremem.get_backend("numpy")
    with planted(named("scores of one row are added to the next")):
        pass
    assert backends_of[np.ndarray] is backend


def test_a_fault_whose_line_is_gone_is_an_error():
    with pytest.raises(LookupError, match="stands 0 times"), planted(Fault("gone", "raremem.rules.noise", "no such line", "")):
        pass


NEITHER = Fault("none", "raremem.rules.eviction", "EMPTY_PRIORITY = MAX_INT32", "EMPTY_PRIORITY = (MAX_INT32)")
UNSEEN = {
    "torch": Fault(
        "keys in bf16 are taken whoever has written",
        "raremem.adapters.torch.low_keys",
        "if kept is None or not kept.watch.holds("
        "state.keys.detach().numpy(), _stamp(state.keys, state.step)):\n            return None\n        return kept",
        "return kept",
    ),
    "numpy": Fault(
        "an index is taken whoever has written",
        "raremem.search.live",
        "p.eager and self.index.is_of(state.keys, self._stamp(state))",
        "self.index.ready",
    ),
}
"""No law tells: through the interface of a backend nothing writes to a memory behind its back."""
DECOY, WRITTEN = 20_010, 157
"""The second is among those that `raremem.watch` compares, whether or not a framework counts writes."""
CONFIG = raremem.MemoryConfig(slots=DECOY + 1, key_dim=16, neighbors=1)


class ByItsKeys:
    """An index that finds the nearest by the keys that it was built of."""

    def __init__(self, keys, slots, seed):
        self.keys, self.slots = keys, slots

    def search(self, queries, count):
        return self.slots[np.argsort(-(queries @ self.keys.T), axis=1, kind="stable")[:, :count]]


def nearest_after_a_write_of_others(backend):
    """The nearest slot to axis 1 after a key there was written by hand, between a search and an update of another slot."""
    axes = np.eye(16, dtype=np.float32)
    portable = {
        "keys": np.tile(-axes[0], (CONFIG.slots, 1)),
        "values": np.zeros(CONFIG.slots, np.int32),
        "ages": np.ones(CONFIG.slots, np.int32),
        "filled": np.ones(CONFIG.slots, np.bool_),
        "step": 1000,
    }
    portable["keys"][DECOY] = 0.25
    portable["ages"][DECOY] = 0
    state = backend.from_numpy(CONFIG, portable)
    many, one = (backend.own(np.tile(axes[axis], (rows, 1)), state) for axis, rows in ((1, 64), (2, 1)))
    for _ in range(2):
        assert (np.asarray(backend.query(CONFIG, state, many).slots) == DECOY).all()
    found = backend.query(CONFIG, state, one)
    state.keys[WRITTEN] = many[0]
    state, _ = backend.update(CONFIG, state, one, np.array([5]), None, found)
    return int(backend.query(CONFIG, state, many).slots[0, 0])


@pytest.mark.parametrize(("backend", "index"), [("torch", None), ("numpy", ByItsKeys)])
def test_what_is_taken_without_a_look_takes_writes_of_others_for_its_own(backend, index, monkeypatch):
    """What is kept beside a memory (keys in bf16, an index) is given up for them."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    for fault, nearest in ((NEITHER, WRITTEN), (UNSEEN[backend], DECOY)):
        with planted(dataclasses.replace(fault, backend=backend)) as made:
            made = made if index is None else made.indexed(LiveIndex(index, background=False, plan=LivePlan(smallest=1)))
            assert nearest_after_a_write_of_others(made) == nearest
