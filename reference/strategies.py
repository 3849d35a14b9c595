"""Hypothesis strategies for the input of laws: configs, memories and batches.

`exact` cases are made of directions with 1, 4 or 16 non-zero entries, equal but for the sign. Their norms are powers of two,
and every product, sum, root and quotient in a query is exact in f32, so backends must agree to the bit. Keys are few, so that
equal similarities are common. `general` cases are arbitrary f32 rows, compared within `tolerance`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from raremem.config import MemoryConfig
from raremem.state import PortableState

Draw = Any


@dataclass(frozen=True)
class Size:
    """A config and a batch size. Compiled backends get few sizes, since a compiler makes a program for each. One of these has
    more slots than a vector register has lanes."""

    config: MemoryConfig
    batch: int


FEW_SIZES = (
    Size(MemoryConfig(37, 4, neighbors=3, margin=0.125, softmax_temperature=4.0, age_noise=2, seed=1), 4),
    Size(MemoryConfig(1, 4, neighbors=1, margin=0.25, softmax_temperature=1.0, age_noise=0, seed=0), 3),
    Size(MemoryConfig(9, 16, neighbors=99, margin=0.5, softmax_temperature=8.0, age_noise=8, seed=2**32 - 1), 12),
)
MANY_SIZES = (
    *FEW_SIZES,
    Size(MemoryConfig(5, 1, neighbors=2, margin=0.5, softmax_temperature=2.0, age_noise=1, seed=2), 5),
    Size(MemoryConfig(3, 2, neighbors=2, margin=0.0, softmax_temperature=0.0, age_noise=3, seed=3), 1),
    Size(MemoryConfig(6, 8, neighbors=7, margin=2.0, softmax_temperature=40.0, age_noise=100, seed=4), 6),
    Size(MemoryConfig(64, 16, neighbors=64, margin=0.125, softmax_temperature=16.0, age_noise=8, seed=5), 20),
)
ONE_ROW = Size(MemoryConfig(210, 33, neighbors=250, margin=0.125, softmax_temperature=64.0, age_noise=0, seed=6), 1)


def with_config(sizes: tuple[Size, ...], **fields: Any) -> tuple[Size, ...]:
    """These sizes with some fields of their configs replaced."""
    return tuple(replace(size, config=replace(size.config, **fields)) for size in sizes)


@dataclass(frozen=True)
class Case:
    """A memory and a batch for it, in NumPy: the input of every law."""

    config: MemoryConfig
    state: PortableState
    queries: NDArray[np.float32]
    targets: NDArray[np.int32]
    mask: NDArray[np.bool_] | Any
    exact: bool

    def rows(self, keep: NDArray[Any] | slice) -> Case:
        """The case with the rows of its batch that `keep` selects."""
        return replace(self, queries=self.queries[keep], targets=self.targets[keep], mask=self.mask[keep])

    def everyone(self) -> Case:
        """The case with no row masked."""
        return replace(self, mask=np.ones_like(self.mask))


def direction(dim: int, code: int) -> NDArray[np.float32]:
    """The unit vector [dim] of a code, a whole number. Small codes stand for few directions."""
    counts = [count for count in (1, 4, 16) if count <= dim]
    code, choice = divmod(code, len(counts))
    code, start = divmod(code, dim)
    row = np.zeros(dim, np.float32)
    for place in range(counts[choice]):
        code, sign = divmod(code, 2)
        row[(start + place) % dim] = (-1.0 if sign else 1.0) / np.sqrt(counts[choice])
    return row


def codes() -> st.SearchStrategy[int]:
    """Codes of directions, most of them among a few."""
    return st.one_of(st.integers(0, 6), st.integers(0, 2**20))


def ages() -> st.SearchStrategy[int]:
    """Ages that differ by less than the noise, and some at the ends of their ranges (2**24 in a priority that has hits too)."""
    ends = st.one_of(st.integers(2**31 - 14, 2**31 - 1), st.integers(2**24 - 40, 2**24 + 2))
    return st.one_of(st.integers(0, 12), st.integers(0, 2000), ends)


def steps() -> st.SearchStrategy[int]:
    """Steps, some near the ends of signed and unsigned 32 bits."""
    return st.one_of(
        st.integers(0, 50), st.integers(2**31 - 3, 2**31 + 3), st.integers(2**32 - 3, 2**32 - 1), st.integers(0, 2**32 - 1)
    )


@st.composite
def memories(draw: Draw, config: MemoryConfig, exact: bool, full: bool | None = None, values: int = 4) -> PortableState:
    """A memory of this config; `full`: no slot is empty (True), every slot is (False), or drawn (None)."""
    share = draw(st.sampled_from([0.0, 0.3, 0.8, 1.0] if full is None else [float(full)]))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    filled = generator.random(config.slots) < share
    if exact:
        pool = draw(st.lists(codes(), min_size=1, max_size=8))
        keys = np.stack([direction(config.key_dim, pool[i]) for i in generator.integers(0, len(pool), config.slots)])
    else:
        rows = generator.normal(size=(config.slots, config.key_dim))
        keys = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    hits = np.minimum(generator.geometric(0.4, config.slots) - 1 + draw(st.sampled_from([0, 0, 124])), 127)
    age_pool = np.array(draw(st.lists(ages(), min_size=1, max_size=6)))
    return {
        "keys": np.where(filled[:, None], keys, np.float32(0)),
        "values": np.where(filled, generator.integers(0, values, config.slots), -1).astype(np.int32),
        "ages": np.where(filled, age_pool[generator.integers(0, len(age_pool), config.slots)], 0).astype(np.int32),
        "filled": filled,
        "hits": np.where(filled, hits, 0).astype(np.int32),
        "step": draw(steps()),
    }


@st.composite
def cases(
    draw: Draw,
    sizes: tuple[Size, ...],
    exact: bool = True,
    full: bool | None = None,
    masked: bool = True,
    only: tuple[int, ...] | None = None,
) -> Case:
    """A case of one of `sizes` (or of those at the places `only`); half the rows of a general case lie close to a key."""
    size = draw(st.sampled_from(sizes if only is None else tuple(sizes[place] for place in only if place < len(sizes))))
    config, batch = size.config, size.batch
    state = draw(memories(config, exact, full))
    if exact:
        pool = draw(st.lists(codes(), min_size=1, max_size=6))
        chosen = draw(st.lists(st.integers(0, len(pool) - 1), min_size=batch, max_size=batch))
        scale = 2.0 ** draw(st.integers(-20, 20))
        queries = np.stack([direction(config.key_dim, pool[place]) for place in chosen]) * np.float32(scale)
    else:
        generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        rows = generator.normal(size=(batch, config.key_dim))
        near = state["keys"][generator.integers(0, config.slots, batch)]
        rows = np.where(generator.random(batch)[:, None] < 0.5, rows, near + 0.1 * rows)
        queries = (rows * 10.0 ** generator.uniform(-3, 3, (batch, 1))).astype(np.float32)
    targets = np.array(draw(st.lists(st.integers(0, 5), min_size=batch, max_size=batch)), np.int32)
    mask = np.ones(batch, np.bool_)
    if masked:
        mask = np.array(draw(st.lists(st.booleans(), min_size=batch, max_size=batch)), np.bool_)
    return Case(config, state, queries.astype(np.float32), targets, mask, exact)
