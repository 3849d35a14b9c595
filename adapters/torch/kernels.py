"""Rule 2's search in PyTorch on a GPU: kernels in Triton that keep of every block of slots only the best.

Keys are read once. What is compared are ordinals, i64: a score's bits above those of its slot or block, so that `torch.topk`
knows an order among equals. Nothing waits for the device, and no shape depends on content: a CUDA graph can hold it. Products
are summed in f32 whatever `torch.set_float32_matmul_precision` says.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from raremem.primitives import Primitives
from raremem.search.contract import Found, Searcher
from raremem.state import NO_SLOT, MemoryState

NOTHING = tl.constexpr(-float("inf"))
EMPTY = tl.constexpr(NO_SLOT)
LOW_BITS = tl.constexpr(0xFFFFFFFF)

NO_ORDINAL = (-(2**31) | 0x7FFFFF) << 32 | 0xFFFFFFFF
"""No ordinal of minus infinity is above this, and every other one is."""

QUERIES = 64
"""Rows of the batch that one program compares with its slots."""
DIMS = 32
"""Dimensions that a program multiplies at a time."""


@dataclass(frozen=True)
class KernelPlan:
    """Sizes of the search by kernels.

    Attributes:
        width: slots in a block: with fewer there are more maxima to choose among, with more there are more slots to score.
        tile: slots that one program compares with `QUERIES` rows; a power of two, at least `width`.
        held: ordinals that are held at a time, at most; the default is 256 MB.
    """

    width: int = 64
    tile: int = 128
    held: int = 2**25


@triton.jit
def _ordinal(scores, ids):
    """In the order of `raremem.score_order.ordinal`, but another number. A sum that begins with 0.0 is never -0.0."""
    bits = scores.to(tl.int32, bitcast=True)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (bits.to(tl.int64) << 32) | (LOW_BITS - ids.to(tl.int64))


@triton.jit
def _scores(
    keys,
    queries,
    slot,
    row,
    slots,
    batch,
    dim: tl.constexpr,
    tile: tl.constexpr,
    rows: tl.constexpr,
    dims: tl.constexpr,
    precision: tl.constexpr,
):
    """The products [tile, rows] of the keys of these slots with these queries; 0 beyond the last of either."""
    scores = tl.zeros((tile, rows), tl.float32)
    key_row = slot.to(tl.int64)[:, None] * dim
    for start in range(0, dim, dims):
        column = start + tl.arange(0, dims)
        key_there = (slot < slots)[:, None] & (column < dim)[None, :]
        query_there = (row < batch)[None, :] & (column < dim)[:, None]
        some_keys = tl.load(keys + key_row + column[None, :], mask=key_there, other=0.0)
        some_queries = tl.load(queries + row[None, :] * dim + column[:, None], mask=query_there, other=0.0)
        scores = tl.dot(some_keys, some_queries, scores, input_precision=precision)
    return scores


@triton.jit
def _ordinals_of_blocks(
    keys,
    values,
    queries,
    targets,
    ordinals,
    best,
    slots,
    batch,
    blocks,
    dim: tl.constexpr,
    width: tl.constexpr,
    with_targets: tl.constexpr,
    tile: tl.constexpr,
    rows: tl.constexpr,
    dims: tl.constexpr,
    precision: tl.constexpr,
):
    """The ordinal [batch, blocks] of each block's best slot, and that [batch] of the best slot with each target."""
    row_tiles = tl.cdiv(batch, rows)  # those with the same keys run side by side
    row = tl.program_id(0) % row_tiles * rows + tl.arange(0, rows)
    first = tl.program_id(0) // row_tiles * tile
    slot = first + tl.arange(0, tile)
    scores = _scores(keys, queries, slot, row, slots, batch, dim, tile, rows, dims, precision)
    value = tl.load(values + slot, mask=slot < slots, other=EMPTY)
    scores = tl.where((value != EMPTY)[:, None], scores, NOTHING)
    maxima = tl.max(tl.reshape(scores, (tile // width, width, rows)), axis=1)
    block = first // width + tl.arange(0, tile // width)
    there = (block < blocks)[:, None] & (row < batch)[None, :]
    place = row.to(tl.int64)[None, :] * blocks + block[:, None]
    tl.store(ordinals + place, _ordinal(maxima, tl.broadcast_to(block[:, None], (tile // width, rows))), mask=there)
    if with_targets:
        target = tl.load(targets + row, mask=row < batch, other=EMPTY)
        scores = tl.where(value[:, None] == target[None, :], scores, NOTHING)
        highest = tl.max(scores, axis=0)
        found = (highest > NOTHING) & (row < batch)
        if tl.max(found.to(tl.int32), axis=0) > 0:
            lowest = tl.min(tl.where(scores == highest[None, :], slot[:, None], slots), axis=0)
            tl.atomic_max(best + row, _ordinal(highest, lowest), mask=found)


@triton.jit
def _ordinals_of_slots(
    keys, values, queries, chosen, ordinals, slots, count, dim: tl.constexpr, width: tl.constexpr, dims: tl.constexpr
):
    """The ordinals [batch, count * width] of the slots of each row's chosen blocks, which are ordinals [batch, count]."""
    row, number = tl.program_id(0).to(tl.int64), tl.program_id(1)
    block = LOW_BITS - (tl.load(chosen + row * count + number) & LOW_BITS)
    slot = block * width + tl.arange(0, width)
    scores = tl.zeros((width,), tl.float32)
    for start in range(0, dim, dims):
        column = start + tl.arange(0, dims)
        there = (slot < slots)[:, None] & (column < dim)[None, :]
        some_keys = tl.load(keys + slot[:, None] * dim + column[None, :], mask=there, other=0.0)
        query = tl.load(queries + row * dim + column, mask=column < dim, other=0.0)
        scores += tl.sum(some_keys * query[None, :], axis=1)
    value = tl.load(values + slot, mask=slot < slots, other=EMPTY)
    scores = tl.where(value != EMPTY, scores, NOTHING)
    tl.store(ordinals + (row * count + number) * width + tl.arange(0, width), _ordinal(scores, slot))


@torch.library.custom_op("raremem::nearest", mutates_args=())
def nearest(
    keys: Tensor, values: Tensor, queries: Tensor, targets: Tensor | None, k: int, width: int, tile: int, held: int
) -> tuple[Tensor, Tensor]:
    """As `Searcher.find`, with the sizes of a `KernelPlan`; without targets the second is [B, 0].

    One operator, into which no compiler looks.
    """
    keys, queries, slots = keys.contiguous(), queries.contiguous(), len(keys)
    if not len(queries):
        return _like(keys, values, queries, targets, k, width, tile, held)
    width = width if slots > 4 * width * k else 1
    blocks = -(-slots // width)
    size = max(QUERIES, held // max(blocks, width * k))
    parts = [
        _nearest(keys, values, some, None if targets is None else targets[start : start + size], k, width, blocks, tile)
        for start, some in zip(range(0, len(queries), size), queries.split(size), strict=True)
    ]
    ordinals, best = (torch.cat(part) for part in zip(*parts, strict=True))
    return _slots_of(ordinals), _slots_of(best)


@nearest.register_fake
def _like(
    keys: Tensor, values: Tensor, queries: Tensor, targets: Tensor | None, k: int, width: int, tile: int, held: int
) -> tuple[Tensor, Tensor]:
    found = values.new_empty((len(queries), k))
    return found, found.new_empty((len(queries), 0 if targets is None else 1))


def _nearest(
    keys: Tensor, values: Tensor, queries: Tensor, targets: Tensor | None, k: int, width: int, blocks: int, tile: int
) -> tuple[Tensor, Tensor]:
    """The ordinals [B, k] of the nearest slots, and [B, 1] of the best with the target, or [B, 0]."""
    (batch, dim), slots = queries.shape, len(keys)
    ordinals = torch.empty((batch, blocks), dtype=torch.int64, device=keys.device)
    best = torch.full((batch, 0 if targets is None else 1), NO_ORDINAL, dtype=torch.int64, device=keys.device)
    rows = min(QUERIES, max(16, triton.next_power_of_2(batch)))
    _ordinals_of_blocks[(triton.cdiv(batch, rows) * triton.cdiv(slots, tile),)](
        keys,
        values,
        queries,
        values if targets is None else targets,
        ordinals,
        best,
        slots,
        batch,
        blocks,
        dim=dim,
        width=width,
        with_targets=targets is not None,
        tile=tile,
        rows=rows,
        dims=DIMS,
        precision=_precision(keys.device),
    )
    found = torch.topk(ordinals, min(k, blocks), dim=1).values
    if width > 1:
        count = found.shape[1]
        ordinals = ordinals.new_empty((batch, count * width))
        _ordinals_of_slots[(batch, count)](
            keys, values, queries, found, ordinals, slots, count, dim=dim, width=width, dims=DIMS
        )
        found = torch.topk(ordinals, k, dim=1).values
    return found, best


def _precision(device: torch.device) -> str:
    """tf32 in three parts is as right as f32, and quicker where there are units for it."""
    has_tf32 = device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)
    return "tf32x3" if has_tf32 else "ieee"


def _slots_of(ordinals: Tensor) -> Tensor:
    return torch.where(ordinals > NO_ORDINAL, ~ordinals & 0xFFFFFFFF, NO_SLOT).to(torch.int32)


class KernelSearch(Searcher):
    """The search by these kernels.

    Args:
        plan: their sizes; None is `KernelPlan()`.
    """

    def __init__(self, plan: KernelPlan | None = None) -> None:
        self.plan = KernelPlan() if plan is None else plan

    def find(self, p: Primitives, state: MemoryState, queries: Tensor, targets: Tensor | None, k: int) -> Found:
        """See `Searcher.find`."""
        plan = self.plan
        slots, best = nearest(state.keys, state.values, queries, targets, k, plan.width, plan.tile, plan.held)
        return Found(slots, None if targets is None else best)
