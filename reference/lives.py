"""Hypothesis strategies for lives: sequences of calls on one memory, from `init` on.

In an exact life each value has one direction, so every hit merges equal rows, and keys stay exact; rows are as in `strategies`.
In a general life rows are arbitrary, and about half of them have the value of their nearest neighbor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from raremem.config import MemoryConfig
from raremem.reference.strategies import Draw, codes, direction

VALUES = (
    0,
    1,
    5,
    29,
    30,
    31,
    64,
    100,
    127,
    128,
    200,
    255,
    256,
    1000,
    32767,
    32768,
    65536,
    2**24,
    2**24 + 1,
    2**31 - 2,
    2**31 - 1,
)
"""Values at the ends of integer dtypes, and where f32 stops being exact."""
BAD = (np.nan, np.inf, -np.inf, 0.0, 2.0**-101)
"""A row of zeros with one of these entries has no direction. In f64 neither has one with 1e300, which is infinite in f32."""
LAYOUTS = ("plain", "strided", "fortran", "reversed", "read-only")
ROWS = ("float32", "float64", "float16", "bfloat16")
TARGETS = ("int32", "int64", "int16", "int8", "uint8")
LOOKUPS = (
    "none", "current", "late", "with other targets", "without targets", "with another mask", "of another memory",
)  # fmt: skip
FEWEST, MOST = 12, 24
"""Calls in a life. A failing life shrinks by calls that become "nothing"."""
ACTIONS = ("nothing", "update", "query", "exchange", "save and load", "copy", "look")


@dataclass(frozen=True)
class World:
    """A memory's config, its batch sizes, and the dtypes and layouts of its input. Compiled backends get few of each, since a
    compiler makes a program for each combination."""

    config: MemoryConfig
    batches: tuple[int, ...]
    rows: tuple[str, ...] = ROWS
    targets: tuple[str, ...] = TARGETS
    layouts: tuple[str, ...] = LAYOUTS


_FEW: dict[str, tuple[str, ...]] = {"rows": ("float32",), "targets": ("int64",), "layouts": ("plain", "strided")}
FEW_WORLDS = (
    World(MemoryConfig(7, 24, neighbors=3, margin=0.125, softmax_temperature=64.0, age_noise=2, seed=7), (4,), **_FEW),
)
MANY_WORLDS = (
    replace(FEW_WORLDS[0], batches=(4, 1, 30), rows=ROWS, targets=TARGETS, layouts=LAYOUTS),
    World(MemoryConfig(5, 4, neighbors=1, margin=0.25, softmax_temperature=1.0, age_noise=0), (3, 1)),
    World(MemoryConfig(23, 20, neighbors=99, softmax_temperature=100.0, loss="nll", evict="least_hit", seed=9), (2, 6)),
    World(MemoryConfig(210, 33, neighbors=5, margin=0.5, softmax_temperature=8.0, age_noise=0), (1,)),
    World(MemoryConfig(11, 6, neighbors=4, softmax_temperature=10.0, evict="least_hit", write="keep", age_noise=1), (3, 7)),
)
GENERAL = World(
    MemoryConfig(24, 19, neighbors=4, softmax_temperature=50.0, age_noise=3, seed=11), (5,), ("float32", "float64"), ("int64",)
)


@dataclass(frozen=True)
class Step:
    """One call, or the same `times` times with rows that change.

    Attributes:
        action: one of `ACTIONS`, or "forget"; "nothing" is left out of a life.
        batch: the number of rows.
        seed: decides the rows, labels and mask.
        lookup: which lookup an update gets, one of `LOOKUPS`.
        rows, targets, layout: dtypes and layout of the input.
        mask: "none" (the argument is left out), "some", "all", or "nothing".
        bad: the number of rows without a direction.
        own: the input is in arrays of the backend's framework; else of NumPy.
        strict: the argument `strict`.
        scale: rows are multiplied by two to this power; to eight times it in dtypes wider than f16.
        times: how often the call is made.
    """

    action: str
    batch: int = 1
    seed: int = 0
    lookup: str = "none"
    rows: str = "float32"
    targets: str = "int32"
    layout: str = "plain"
    mask: str = "none"
    bad: int = 0
    own: bool = False
    strict: bool = False
    scale: int = 0
    times: int = 1


@dataclass(frozen=True)
class Life:
    """The calls on a memory from `init` on: the input of a law over time."""

    config: MemoryConfig
    pool: tuple[int, ...]
    """Codes of the directions of its rows; none for arbitrary rows."""
    values: tuple[int, ...]
    """Its labels; each has one direction."""
    steps: tuple[Step, ...]

    def directions(self) -> NDArray[np.float32]:
        """The directions [n, key_dim] of the pool, each once."""
        rows = np.stack([direction(self.config.key_dim, code) for code in self.pool])
        return rows[np.sort(np.unique(rows, axis=0, return_index=True)[1])]


class Batch(NamedTuple):
    """The input of a step: rows [B, key_dim] f64, targets [B] i64, and a mask [B] or None."""

    rows: NDArray[np.float64]
    targets: NDArray[np.int64]
    mask: NDArray[np.bool_] | None


def exact_batch(life: Life, step: Step, turn: int) -> Batch:
    """Directions of the pool, each with a value that has this direction."""
    generator = np.random.default_rng([step.seed, turn])
    pool = life.directions()
    fit = [place for place, value in enumerate(life.values) if value <= np.iinfo(step.targets).max]
    chosen = np.array(fit)[generator.integers(0, len(fit), step.batch)] if step.seed else np.zeros(step.batch, np.int64)
    rows = pool[chosen % len(pool)].astype(np.float64) * 2.0 ** (step.scale if step.rows == "float16" else 8 * step.scale)
    return Batch(_with_bad(rows, step, generator), np.array(life.values, np.int64)[chosen], _mask(step, generator))


def general_batch(life: Life, step: Step, turn: int, keys: NDArray[np.float32], values: NDArray[np.int32]) -> Batch:
    """Arbitrary rows, half of them near a key of the memory, most with its value."""
    generator = np.random.default_rng([step.seed, turn])
    rows = generator.normal(size=(step.batch, life.config.key_dim))
    near = generator.integers(0, len(keys), step.batch)
    close = (generator.random(step.batch) < 0.7) & (values[near] >= 0)
    rows = np.where(close[:, None], keys[near] + 0.1 * rows, rows) * 10.0 ** generator.uniform(-3, 3, (step.batch, 1))
    known = close & (generator.random(step.batch) < 0.8)
    targets = np.where(known, values[near], generator.integers(0, 2**31, step.batch))
    return Batch(_with_bad(rows, step, generator), targets, _mask(step, generator))


def _with_bad(rows: NDArray[np.float64], step: Step, generator: np.random.Generator) -> NDArray[np.float64]:
    bad = BAD if step.rows != "float64" else (*BAD, 1e300)
    for row in generator.permutation(step.batch)[: step.bad]:
        rows[row] = 0
        rows[row, generator.integers(0, rows.shape[1])] = bad[generator.integers(0, len(bad))]
    return rows


def _mask(step: Step, generator: np.random.Generator) -> NDArray[np.bool_] | None:
    if step.mask == "none":
        return None
    some = generator.random(step.batch) < 0.6
    return {"some": some, "all": np.ones_like(some), "nothing": np.zeros_like(some)}[step.mask]


@st.composite
def lives(draw: Draw, worlds: tuple[World, ...], exact: bool = True, forgets: bool = False) -> tuple[Life, ...]:
    """Lives of the same calls, one in each of these worlds."""
    pool = draw(st.lists(codes(), min_size=2, max_size=8)) if exact else ()
    first = draw(st.integers(0, len(VALUES) - 3))
    values = tuple(dict.fromkeys((0, 5, *VALUES[first : first + 3], 2**24, 2**24 + 1)))
    taken = draw(st.lists(steps(exact, forgets), min_size=FEWEST, max_size=MOST))
    return tuple(
        Life(world.config, tuple(pool), values, tuple(of_world(step, world) for step in taken if step.action != "nothing"))
        for world in worlds
    )


@st.composite
def steps(draw: Draw, exact: bool, forgets: bool = False) -> Step:
    """A step. A failing step shrinks to what is drawn first, and to the first of a list."""
    action = draw(st.sampled_from(ACTIONS + ACTIONS[1:2] * 6 + ("forget",) * (4 if forgets else 0)))
    if action == "nothing":
        return Step(action)
    seed = draw(st.integers(0, 2**16))
    if action not in ("update", "query"):
        return Step(action, seed=seed)
    return Step(
        action,
        draw(st.integers(0, 5)),
        seed,
        draw(st.sampled_from(LOOKUPS)) if action == "update" else "none",
        draw(st.sampled_from(ROWS)),
        draw(st.sampled_from(TARGETS)) if exact else "int64",
        draw(st.sampled_from(LAYOUTS)),
        draw(st.sampled_from(("none", "some", "all", "some", "nothing"))),
        bad=draw(st.sampled_from((0, 0, 1, 2))),
        own=draw(st.booleans()),
        strict=draw(st.sampled_from((False, False, True))),
        scale=draw(st.integers(-6, 6)) if exact else 0,
        times=draw(st.sampled_from((1, 1, 1, 3))),
    )


def of_world(step: Step, world: World) -> Step:
    """The step with a batch size, dtypes and a layout of this world; `step.batch` is the place of the batch size."""

    def one(choices: tuple[str, ...], drawn: str) -> str:
        return drawn if drawn in choices else choices[len(drawn) % len(choices)]

    return replace(
        step,
        batch=world.batches[step.batch % len(world.batches)],
        rows=one(world.rows, step.rows),
        targets=one(world.targets, step.targets),
        layout=one(world.layouts, step.layout),
    )


def long_lives(worlds: tuple[World, ...]) -> st.SearchStrategy[tuple[Life, ...]]:
    """Lives of hundreds of updates in the first world."""

    def of(pool: list[int], parts: list[Step]) -> tuple[Life, ...]:
        return (Life(worlds[0].config, tuple(pool), VALUES, tuple(replace(step, times=70) for step in parts)),)

    pools = st.lists(st.integers(0, 2**20), min_size=5, max_size=16)
    part = st.builds(
        Step,
        st.just("update"),
        st.just(worlds[0].batches[0]),
        st.integers(1, 2**16),
        st.sampled_from(("none", "current")),
        mask=st.sampled_from(("none", "some")),
        bad=st.sampled_from((0, 1)),
    )
    return st.builds(of, pools, st.lists(part, min_size=3, max_size=3))


def cast(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """An f64 array in a dtype of NumPy; for "bfloat16" in f32, with the bits cut off that bf16 has not."""
    with np.errstate(over="ignore", under="ignore"):
        if dtype != "bfloat16":
            return array.astype(dtype)
        bits = array.astype(np.float32).view(np.uint32)
        return np.where(np.isfinite(array), (bits & np.uint32(0xFFFF0000)).view(np.float32), array.astype(np.float32))


def lay_out(array: NDArray[Any], layout: str) -> NDArray[Any]:
    """A copy of an array in this memory layout, one of `LAYOUTS`."""
    if layout == "strided":
        wide = np.ones((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    if layout == "reversed":
        return array[::-1].copy()[::-1]
    array = np.array(array, order="F" if layout == "fortran" else "C")
    array.flags.writeable = layout != "read-only"
    return array
