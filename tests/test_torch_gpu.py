"""The kernels of the search on a GPU, run on the CPU by Triton's interpreter."""

from dataclasses import astuple

import pytest
import torch

from raremem.adapters.torch import TorchBackend, search_operator
from raremem.reference.laws import LAWS, run

kernels = pytest.importorskip("raremem.adapters.torch.kernels", reason="Triton is not installed")


class GpuBackend(TorchBackend):
    """As on a GPU: content is not seen."""

    eager = None


ANY_BACKEND = [law for law in LAWS.values() if law.needs is None]
SIZES = astuple(kernels.KernelPlan())
LARGE = ("large_memory_agrees", "slots_far_apart_agree")


@pytest.mark.parametrize("law", ANY_BACKEND, ids=lambda law: law.name)
def test_every_law_holds(law):
    plan = kernels.KernelPlan(tile=2**12)  # the interpreter takes as long for a large program as for a small one
    run(law, GpuBackend(searcher=kernels.KernelSearch(plan)), 1 if law.name in LARGE else 5)


@pytest.mark.parametrize("law", [law for law in ANY_BACKEND if law.name not in LARGE], ids=lambda law: law.name)
def test_every_law_holds_where_small_memories_have_blocks(law):
    """Blocks of two slots; 270,000 slots would take the interpreter 4,200 programs of 128, each of which takes milliseconds."""
    plan = kernels.KernelPlan(width=2, tile=2**12 if law.name == "far_slots_are_written" else kernels.KernelPlan.tile)
    run(law, GpuBackend(searcher=kernels.KernelSearch(plan)), 5)


def question(rows):
    """Whole numbers, of which many are alike: every sum is exact, and there are equals."""
    generator = torch.Generator().manual_seed(0)
    keys = torch.randint(-2, 3, (300, 6), generator=generator).float()
    values, targets = (torch.randint(-1, 20, (count,), generator=generator, dtype=torch.int32) for count in (300, rows))
    return keys, values, torch.randint(-2, 3, (rows, 6), generator=generator).float(), targets


def test_a_large_batch_is_searched_in_groups(monkeypatch):
    keys, values, queries, targets = question(200)
    together = kernels.nearest(keys, values, queries, targets, 3, *SIZES)
    calls = []
    monkeypatch.setattr(kernels, "_nearest", lambda *a, found=kernels._nearest: calls.append(len(a[2])) or found(*a))
    in_groups = kernels.nearest(keys, values, queries, targets, 3, *SIZES[:2], 64 * 300)
    assert calls == [64, 64, 64, 8]
    assert all(map(torch.equal, together, in_groups))


@pytest.mark.parametrize("rows", [0, 20])
@pytest.mark.parametrize("with_targets", [True, False])
def test_a_compiler_is_told_the_truth_about_the_operator(rows, with_targets):
    keys, values, queries, targets = question(rows)
    torch.library.opcheck(kernels.nearest, (keys, values, queries, targets if with_targets else None, 3, *SIZES))


def test_its_operator_takes_no_other_s_place():
    assert kernels.nearest._qualname != search_operator.nearest._qualname
