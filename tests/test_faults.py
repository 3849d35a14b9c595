"""Each planted fault is caught by some law, and no law holds a fault that is not there."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import raremem
from raremem.reference.faults import FAULTS, Fault, caught_by, planted, table
from raremem.reference.laws import LAWS, run


def named(name):
    return next(fault for fault in FAULTS if fault.name == name)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_caught(fault):
    assert next(caught_by(fault), None), "no law was broken by this fault"


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


def test_a_fault_whose_line_is_gone_is_an_error():
    with pytest.raises(LookupError, match="stands 0 times"), planted(Fault("gone", "raremem.rules.noise", "no such line", "")):
        pass
