"""A memory without content: on meta, in `FakeTensorMode`, and in traces. Shapes and dtypes are followed alone."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import raremem
from raremem.adapters.torch import LARGE, Memory

SLOTS = [40, LARGE, 200_000]


def config(slots=40):
    return raremem.MemoryConfig(slots=slots, key_dim=8, neighbors=5)


def step(memory, rows=6):
    """All that a memory gives, in this mode."""
    device = memory.keys.device
    query = torch.randn(rows, 8, device=device, requires_grad=True)
    target, mask = torch.zeros(rows, dtype=torch.int64, device=device), torch.ones(rows, dtype=torch.bool, device=device)
    plain, out = memory(query), memory(query, target, mask)
    out.loss.sum().backward()
    report = memory.update(out, mask=mask)
    recalled = out.recall(torch.randn(9, 3, device=device))
    return [*plain, *out, *report, recalled, query.grad, *memory.state]


@pytest.fixture(scope="module")
def usual():
    return {slots: step(Memory(config(slots))) for slots in SLOTS}


def on_meta(slots):
    return step(Memory(config(slots)).to("meta")), lambda array: array.is_meta


def made_on_meta(slots):
    with torch.device("meta"):
        return step(Memory(config(slots))), lambda array: array.is_meta


def fake(slots):
    with FakeTensorMode():
        return step(Memory(config(slots))), lambda array: isinstance(array, FakeTensor)


def fake_over_real(slots):
    memory = Memory(config(slots))
    with FakeTensorMode(allow_non_fake_inputs=True):
        found = step(memory)
    assert not memory.step
    assert not memory.keys.any()
    return found[:-5] + [None] * 5, lambda array: isinstance(array, FakeTensor)


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("way", [on_meta, made_on_meta, fake, fake_over_real])
def test_shapes_and_dtypes_are_those_of_content(way, slots, usual):
    found, is_so = way(slots)
    for mine, own in zip(found, usual[slots], strict=True):
        if own is not None and mine is not None:
            assert is_so(mine)
            assert (mine.shape, mine.dtype) == (own.shape, own.dtype)


def test_what_needs_content_says_that_there_is_none(tmp_path):
    memory = Memory(config(), strict=True).to("meta")
    for call in (
        lambda: memory.backend.to_numpy(memory.state),
        lambda: raremem.save(tmp_path / "memory.safetensors", memory.config, memory.state, memory.backend),
    ):
        with pytest.raises(raremem.DeviceError, match=r"on meta.*expected one that has it\. Make the memory on a device"):
            call()
    with pytest.raises(raremem.RejectedRowsError, match="strict=True cannot look at rows"):
        memory(torch.ones(2, 8, device="meta"))
    with pytest.raises(raremem.DeviceError, match="an input is on cpu; expected meta"):
        memory(torch.ones(2, 8))


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_a_trace_freezes_no_content(mode):
    memory = Memory(config())
    memory.update(memory(torch.eye(8), torch.arange(8)))
    traced = make_fx(lambda rows, targets: tuple(memory(rows, targets)[:6]), tracing_mode=mode, _allow_non_fake_inputs=True)
    program = traced(torch.eye(8)[:3], torch.arange(3))
    rows, targets = torch.eye(8)[[5, 2, 7]] + 0.1, torch.tensor([5, 1, 7])
    for mine, own in zip(program(rows, targets), memory(rows, targets)[:6], strict=True):
        torch.testing.assert_close(mine, own)
