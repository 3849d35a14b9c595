"""A lookup belongs to the memory and to the step it was made on (rule 12), on every backend, eager and compiled."""

import copy

import numpy as np
import pytest
import torch

import raremem
from raremem import MemoryConfig
from raremem.adapters.torch import Memory
from raremem.reference.comparison import as_numpy, same, same_state

CONFIG = MemoryConfig(slots=8, key_dim=4, neighbors=3, age_noise=0)
ROWS, TARGETS = np.eye(4, dtype=np.float32), np.arange(4, dtype=np.int32)
OTHERS = np.float32([[1, 2, 3, 4], [4, 3, 2, 1], [1, -1, 1, -1], [-1, 0, 0, 2]])


@pytest.fixture
def backend(raremem_mode):
    return raremem_mode.backend


def filled(backend, rows=ROWS, targets=TARGETS):
    return backend.update(CONFIG, backend.init(CONFIG), rows, targets)[0]


def same_update(backend, state, one, other):
    """Both updates of a copy of the state leave the same memory and report."""
    after = [backend.update(CONFIG, backend.copy(state), *arguments) for arguments in (one, other)]
    same_state(*(backend.to_numpy(state) for state, _ in after))
    for name, got, expected in zip(after[0][1]._fields, after[0][1], after[1][1], strict=True):
        same(name, got, expected)
    return after[0]


def test_a_late_lookup_is_looked_up_again(backend):
    state = filled(backend)
    mask = np.array([True, True, False, True])
    rows = ROWS + np.float32([0.25, 0, 0, 0])
    rows[3] = np.nan
    found = backend.query(CONFIG, state, rows, None, mask)
    state, _ = backend.update(CONFIG, state, OTHERS, np.array([7, 7, 7, 8], np.int32))
    _, report = same_update(backend, state, (rows, TARGETS, mask, found), (rows, TARGETS, mask))
    assert int(report.rejected) == 1
    assert as_numpy(report.written).tolist() == [True, True, False, False]


def test_with_one_slot_a_late_label_does_not_blend_two_classes(backend):
    one = MemoryConfig(slots=1, key_dim=4, age_noise=0)
    state, _ = backend.update(one, backend.init(one), ROWS[:1], TARGETS[1:2])
    found = backend.query(one, state, ROWS[:1])
    state, _ = backend.update(one, state, ROWS[2:3], np.array([7], np.int32))
    state, report = backend.update(one, state, ROWS[:1], TARGETS[1:2], None, found)
    assert not as_numpy(report.hit).any()
    after = backend.to_numpy(state)
    assert after["values"].tolist() == [1]
    assert after["keys"].tolist() == ROWS[:1].tolist()


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_lookup_of_another_memory_is_an_error(backend, steps):
    """At the same step or another; the memory is then as it was."""
    state, other = filled(backend), backend.init(CONFIG)
    for place in range(steps):
        other, _ = backend.update(CONFIG, other, OTHERS + place, TARGETS)
    found, before = backend.query(CONFIG, other, ROWS), backend.to_numpy(state)
    with pytest.raises(raremem.StateError, match="made on another memory; expected"):
        backend.update(CONFIG, state, ROWS, TARGETS, None, found)
    same_state(backend.to_numpy(state), before)


def test_what_a_lookup_left_out_is_left_out(backend):
    state = filled(backend)
    found = backend.query(CONFIG, state, OTHERS, None, np.array([True, False, True, True]))
    _, report = same_update(
        backend,
        state,
        (OTHERS, TARGETS, np.array([True, True, False, True]), found),
        (OTHERS, TARGETS, np.array([True, False, False, True])),
    )
    assert as_numpy(report.written).tolist() == [True, False, False, True]


def test_a_lookup_of_other_targets_serves(backend):
    state = filled(backend)
    found = backend.query(CONFIG, state, ROWS, TARGETS[::-1].copy())
    _, report = same_update(backend, state, (ROWS, TARGETS, None, found), (ROWS, TARGETS))
    assert as_numpy(report.hit).all()


def test_a_lookup_whose_origin_is_lost_is_told_by_its_step_and_content(backend):
    """Made anew of the same arrays' content, as a program that pads, cuts or sends it does."""
    state = filled(backend)
    asked = backend.query(CONFIG, state, ROWS)
    lost = asked._replace(slots=asked.slots + 0)
    same_update(backend, state, (ROWS, TARGETS, None, lost), (ROWS, TARGETS))
    other = filled(backend, OTHERS)
    with pytest.raises(raremem.StateError, match="made on another memory"):
        backend.update(CONFIG, other, ROWS, TARGETS, None, lost)
    other, _ = backend.update(CONFIG, other, OTHERS, TARGETS)
    same_update(backend, other, (ROWS, TARGETS, None, lost), (ROWS, TARGETS))
    same_update(backend, other, (ROWS, TARGETS, None, asked._replace(step=None, slots=lost.slots)), (ROWS, TARGETS))


def test_of_a_copy_that_went_its_own_way_rows_are_looked_up_again(backend):
    """Both have taken one more step, and what the lookup found is in both: but nearer rows have come to one alone."""
    state = filled(backend)
    other = backend.copy(state)
    rows = OTHERS[:2]
    found = backend.query(CONFIG, backend.update(CONFIG, state, -ROWS[:1], TARGETS[:1])[0], rows)
    labels = as_numpy(found.values)[:, 0].copy()
    other, _ = backend.update(CONFIG, other, rows, labels + np.int32(50))
    _, report = same_update(backend, other, (rows, labels, None, found), (rows, labels))
    assert not as_numpy(report.hit).any()


REPLACED = {
    "load_state_dict": lambda memory, other: memory.load_state_dict(other.state_dict()),
    "assign": lambda memory, other: memory.load_state_dict(other.state_dict(), assign=True),
    "assign in inference mode": torch.inference_mode()(
        lambda memory, other: memory.load_state_dict({n: t.clone() for n, t in other.state_dict().items()}, assign=True)
    ),
    "fill": lambda memory, other: memory.fill(other.backend.to_numpy(other.state)),
    "by hand": lambda memory, other: [a.copy_(b) for a, b in zip(memory.state, other.state, strict=True)],
    "by PyTorch": lambda memory, other: [memory.register_buffer(n, t.clone()) for n, t in other.state._asdict().items()],
}


@pytest.mark.parametrize("replace", REPLACED.values(), ids=REPLACED)
def test_on_what_was_loaded_rows_are_looked_up_again(replace):
    """At the same step, with all that a lookup found still there."""
    memory = Memory(CONFIG)
    memory.update(memory(torch.eye(4), torch.arange(4)))
    other, row = copy.deepcopy(memory), torch.tensor([[1.0, 0.5, 0.0, 0.0]])
    memory.update(memory(-torch.eye(4)[2:3], torch.tensor([7])))
    other.update(other(row, torch.tensor([9])))
    out = memory(row, torch.tensor([0]))
    replace(memory, other)
    report, expected = memory.update(out), other.update(other(row, torch.tensor([0])))
    assert not report.hit.any()
    assert not expected.hit.any()
    same_state(*(each.backend.to_numpy(each.state) for each in (memory, other)))


def test_a_module_takes_a_label_that_comes_late():
    memory, expected = Memory(CONFIG), Memory(CONFIG)
    rows, others = torch.from_numpy(ROWS), torch.from_numpy(OTHERS)
    for each in (memory, expected):
        each.update(each(rows, torch.arange(4)))
    out = memory(others)
    for each in (memory, expected):
        each.update(each(others[:2], torch.tensor([9, 0])))
    memory.update(out, torch.arange(4))
    expected.update(expected(others), torch.arange(4))
    for got, right in zip(memory.state, expected.state, strict=True):
        assert torch.equal(got, right)


@pytest.mark.parametrize("asked", [lambda memory: memory, lambda memory: torch.compile(memory, fullgraph=True)])
def test_twenty_classes_survive_a_lookup_of_another_module(asked):
    torch.manual_seed(0)
    one, two = (Memory(MemoryConfig(slots=32, key_dim=8)) for _ in range(2))
    for memory in (one, two):
        memory.update(memory(torch.randn(20, 8), torch.arange(20)))
    before = copy.deepcopy(two.state_dict())
    out = asked(one)(torch.randn(20, 8), torch.arange(20))
    with pytest.raises(raremem.StateError, match="made on another memory"):
        two.update(out)
    for name, array in two.state_dict().items():
        assert torch.equal(array, before[name])


def test_after_keys_were_written_by_hand_rows_are_looked_up_again():
    memory = Memory(CONFIG)
    memory.update(memory(torch.eye(4), torch.arange(4)))
    out = memory(torch.eye(4), torch.arange(4))
    memory.keys.data[:4] = torch.eye(4).flip(0)
    report = memory.update(out)
    assert not report.hit.any()
    assert sorted(memory.values.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_in_traced_code_a_row_is_a_hit_only_if_its_slot_still_holds_its_value():
    jax = pytest.importorskip("jax")
    from raremem.adapters import jax as functional

    one = MemoryConfig(slots=1, key_dim=4, age_noise=0)

    @jax.jit
    def late(state):
        state, _ = functional.update(one, state, ROWS[:1], TARGETS[1:2])
        found = functional.query(one, state, ROWS[:1])
        state, _ = functional.update(one, state, ROWS[2:3], TARGETS[3:4])
        return functional.update(one, state, ROWS[:1], TARGETS[1:2], None, found)

    state, report = late(functional.init(one))
    assert not np.asarray(report.hit).any()
    assert functional.to_numpy(state)["keys"].tolist() == ROWS[:1].tolist()

    memory = Memory(one)

    @torch.compile(fullgraph=True)
    def late_in_torch(first, second):
        memory.update(memory(first), torch.tensor([1]))
        out = memory(first)
        memory.update(memory(second), torch.tensor([3]))
        return memory.update(out, torch.tensor([1]))

    with torch.no_grad():
        report = late_in_torch(torch.eye(4)[:1], torch.eye(4)[2:3])
    assert not report.hit.any()
    assert memory.keys.tolist() == ROWS[:1].tolist()
