"""`torch.export` and `torch.compile` with a batch of any size."""

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.export import Dim, export

import raremem
from raremem.adapters.torch import LARGE, Memory
from raremem.state import Lookup

SLOTS = [40, LARGE]
ROWS = [1, 2, 19]


def batch(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(rows, 8, generator=generator)
    return rows, torch.randint(0, 4, (len(rows),), generator=generator), torch.rand(len(rows), generator=generator) > 0.3


def filled(slots):
    memory = Memory(raremem.MemoryConfig(slots=slots, key_dim=8, neighbors=5))
    memory.update(memory(*batch(30)))
    return memory


class Step(torch.nn.Module):
    """A query, and an update with what it found."""

    def __init__(self, memory):
        super().__init__()
        self.memory = memory

    def forward(self, query, target):
        out = self.memory(query, target)
        return out, self.memory.update(out)


def same(found, expected):
    """Two lookups or reports, the slots to the bit."""
    assert type(found) is type(expected)
    for name, mine, own in zip(found._fields, found, expected, strict=True):
        assert (mine is None) == (own is None), name
        if own is not None:
            torch.testing.assert_close(mine, own, msg=name)


@pytest.mark.parametrize("given", [1, 3], ids=["rows", "targets and mask"])
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("slots", SLOTS)
def test_an_exported_memory_takes_any_batch_after_saving_and_loading(slots, strict, given, tmp_path):
    memory, dim = filled(slots), Dim("batch")
    program = export(memory, batch(7)[:given], dynamic_shapes=([{0: dim}] * given + [None] * 3)[:given], strict=strict)
    torch.export.save(program, tmp_path / "memory.pt2")
    loaded = torch.export.load(tmp_path / "memory.pt2").module()
    for rows in ROWS:
        found = loaded(*batch(rows, rows)[:given])
        assert type(found) is Lookup
        same(found, memory(*batch(rows, rows)[:given]))


@pytest.mark.parametrize(("slots", "dim"), [(40, Dim.DYNAMIC), (LARGE, Dim("batch", min=1, max=64))], ids=["small", "large"])
def test_an_exported_update_writes_any_batch(slots, dim, tmp_path):
    memory = filled(slots)
    program = export(Step(copy.deepcopy(memory)), batch(7)[:2], dynamic_shapes=({0: dim}, {0: dim}), strict=False)
    torch.export.save(program, tmp_path / "memory.pt2")
    loaded = torch.export.load(tmp_path / "memory.pt2").module()
    for rows in ROWS:
        for found, expected in zip(loaded(*batch(rows, rows)[:2]), Step(memory)(*batch(rows, rows)[:2]), strict=True):
            same(found, expected)
    state = {name: buffer for name, buffer in loaded.named_buffers() if buffer.dtype == torch.int32}
    assert [buffer.equal(memory.get_buffer(name.split(".")[-1])) for name, buffer in state.items()] == [True] * 4


@pytest.mark.parametrize("way", ["dynamic", "marked"])
@pytest.mark.parametrize("slots", SLOTS)
def test_one_program_is_compiled_for_all_batches(slots, way):
    counter, memory = CompileCounter(), filled(slots)
    other = copy.deepcopy(memory)
    compiled = torch.compile(Step(memory), backend=counter, fullgraph=True, dynamic=True if way == "dynamic" else None)
    for rows in (7, 2, 19, 45):
        arrays = batch(rows, rows)[:2]
        if way == "marked":
            for array in arrays:
                torch._dynamo.mark_dynamic(array, 0)
        for found, expected in zip(compiled(*arrays), Step(other)(*arrays), strict=True):
            same(found, expected)
    assert counter.frame_count == 1
