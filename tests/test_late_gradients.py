"""A gradient belongs to the query it came from (rule 11): taken after any number of updates it is what it was before them."""

import pytest
import torch

from raremem import MemoryConfig
from raremem.adapters.torch import Memory


def gradient(way, rows, late, steps=3):
    """Of all that is differentiable in lookups of several steps, an update after each; taken at every step, or at the end."""
    generator = torch.Generator().manual_seed(0)
    memory = Memory(MemoryConfig(slots=1024))
    memory.update(memory(torch.randn(512, 128, generator=generator), torch.arange(512)))
    ask = way(memory)
    weight = torch.randn(128, 128, generator=generator).requires_grad_()
    losses = []
    for _ in range(steps):
        out = ask(torch.randn(rows, 128, generator=generator) @ weight, torch.arange(rows) % 7)
        losses.append(out.loss.sum() + out.similarities.pow(2).sum() + out.weights[:, 0].sum())
        if not late:
            losses.pop().backward()
        memory.update(out)
    if late:
        for loss in losses:
            loss.backward()
    return weight.grad


def compiled(memory):
    return torch.compile(memory, fullgraph=True)


def eager(memory):
    return memory


@pytest.mark.parametrize(("way", "rows"), [(eager, 4), (eager, 80), (compiled, 80)])
def test_one_backward_at_the_end_is_a_backward_at_each_step(way, rows):
    """With 80 rows and 256 neighbors more is gathered than the key table holds, and all keys are compared instead."""
    assert torch.equal(gradient(way, rows, late=True), gradient(way, rows, late=False))


def test_a_check_of_that_can_fail(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "clone", lambda self: self.data)
    assert not torch.equal(gradient(eager, 80, late=True), gradient(eager, 80, late=False))
