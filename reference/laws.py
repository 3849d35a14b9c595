"""The laws: what every backend must do, one body each, run on any backend and in any mode.

A law is a function `(backend, case)` that raises AssertionError, the strategy its cases come from, and the rule it holds.
`run` tries one on a backend; `tests/test_laws.py` runs all of them on all.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import raremem
from raremem.backend import Backend
from raremem.config import MemoryConfig
from raremem.reference import tolerance
from raremem.reference.comparison import (
    as_numpy,
    check_query,
    check_query_closely,
    check_update,
    close,
    run_query,
    run_update,
    same,
    same_lookup,
    same_state,
)
from raremem.reference.oracle import backend as oracle
from raremem.reference.oracle import loss_gradient
from raremem.reference.strategies import FEW_SIZES, MANY_SIZES, Case, Size, cases, direction
from raremem.search import CHUNK

Check = Callable[[Backend, Case], None]

CHUNKED = Size(MemoryConfig(20_000, 4, neighbors=5, margin=0.125, softmax_temperature=4.0), 3)
"""Larger than one chunk of the exact scan."""


@dataclass(frozen=True)
class Law:
    """One law: its name, the rule of the specification it holds, what it is run on, and its body."""

    name: str
    rule: str
    strategy: Callable[[tuple[Size, ...]], st.SearchStrategy[Case]]
    check: Check
    gradients: bool = False
    costly: bool = False


LAWS: dict[str, Law] = {}


def law(
    rule: str, strategy: Callable[[tuple[Size, ...]], st.SearchStrategy[Case]] = cases, **traits: bool
) -> Callable[[Check], Check]:
    """Enter a function among the laws, under its own name."""

    def enter(check: Check) -> Check:
        LAWS[check.__name__] = Law(check.__name__, rule, strategy, check, **traits)
        return check

    return enter


def run(law: Law, backend: Backend, examples: int = 50, shrink: bool = True) -> None:
    """Try a law on a backend with this many cases (a tenth if it is costly), the same ones every time.

    Raises:
        AssertionError: the law does not hold; Hypothesis adds the smallest case it found.
    """
    sizes = FEW_SIZES if backend.compiled or backend.name == "jax" else MANY_SIZES

    @settings(
        max_examples=max(1, examples // 10) if law.costly else examples,
        phases=[Phase.generate, Phase.shrink] if shrink and not law.costly else [Phase.generate],
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(law.strategy(sizes))
    def check(case: Case) -> None:
        law.check(backend, case)

    check()


def general(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """Arbitrary f32 rows."""
    return cases(sizes, exact=False)


def full(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """Memories with no empty slot."""
    return cases(sizes, full=True, masked=False)


def empty(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """Memories that have seen nothing."""
    return cases(sizes, full=False, masked=False)


def crowded(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """More rows than slots."""
    return cases(tuple(size for size in sizes if size.batch > size.config.slots), masked=False)


def one_slot(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """A memory of a single slot."""
    return cases(tuple(size for size in sizes if size.config.slots == 1))


def many_neighbors(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """More neighbors asked for than there are slots."""
    return cases(tuple(size for size in sizes if size.config.neighbors > size.config.slots))


# Rule 1: queries


@law("1")
def only_direction_matters(backend: Backend, case: Case) -> None:
    """A row scaled by a power of two is the same query, to the bit, over the whole range of f32."""
    plain = run_query(backend, case)
    for scale in (2.0**-70, 2.0**100):
        scaled = dataclasses.replace(case, queries=case.queries * np.float32(scale))
        same_lookup(run_query(backend, scaled), plain, case.config)


@law("1")
def bad_rows_are_rejected(backend: Backend, case: Case) -> None:
    """NaN, infinity, zero and rows of almost nothing: not found, no loss, never written, counted."""
    bad = (np.nan, np.inf, -np.inf, 0.0, 2.0**-101, 1e-45)
    queries = case.queries.copy()
    rows = np.arange(0, len(queries), 2)
    for place, row in enumerate(rows):
        queries[row] = 0
        queries[row, place % queries.shape[1]] = bad[(place + int(case.targets[0])) % len(bad)]
    case = dataclasses.replace(case, queries=queries)
    found = run_query(backend, case)
    assert np.array_equal(found.rejected[rows], case.mask[rows])
    assert not found.found[rows].any()
    assert found.loss is not None
    assert not found.loss[rows].any()
    check_query(backend, case)
    check_update(backend, case)


@law("1")
def strict_names_the_rows(backend: Backend, case: Case) -> None:
    """`strict=True` raises instead, names the row, and leaves the memory as it was."""
    case = case.everyone()
    queries = case.queries.copy()
    queries[-1] = np.nan
    state = backend.from_numpy(case.config, case.state)
    for call in (backend.query, backend.update):
        try:
            call(case.config, state, queries, case.targets, case.mask, strict=True)
        except raremem.RejectedRowsError as error:
            assert str([len(queries) - 1]) in str(error), error
        else:
            raise AssertionError(f"{call.__name__} took a row of NaN with strict=True")
    same_state(backend.to_numpy(state), case.state)


@law("1")
def half_precision_rows_are_cast(backend: Backend, case: Case) -> None:
    """A query in f16 is the query of its f32 values."""
    queries = case.queries / np.abs(case.queries).max()
    half = run_query(backend, dataclasses.replace(case, queries=queries.astype(np.float16)))
    same_lookup(half, run_query(backend, dataclasses.replace(case, queries=queries)), case.config)


# Rule 2: lookup


@law("2, 3")
def query_agrees(backend: Backend, case: Case) -> None:
    """Everything a query returns, to the bit; ties are common."""
    check_query(backend, case)


@law("2, 3", general)
def query_agrees_on_any_rows(backend: Backend, case: Case) -> None:
    """The same on arbitrary rows, within the derived tolerance."""
    check_query_closely(backend, case)


@law("2")
def query_without_targets_is_the_same(backend: Backend, case: Case) -> None:
    """Targets add a loss and change nothing else."""
    with_targets, without = run_query(backend, case), run_query(backend, case, targets=False)
    assert without.loss is None
    assert without.targets is None
    same_lookup(without, with_targets._replace(loss=None, targets=None), case.config)


@law("2", empty)
def empty_memory_finds_nothing(backend: Backend, case: Case) -> None:
    """No neighbor, no weight, no loss."""
    found = run_query(backend, case)
    assert not found.found.any()
    assert (found.slots == -1).all()
    assert (found.values == -1).all()
    assert not found.weights.any()
    assert found.loss is not None
    assert not found.loss.any()
    check_update(backend, case)


@law("2", one_slot)
def one_slot_is_a_memory(backend: Backend, case: Case) -> None:
    """A single slot is found, hit and evicted like any."""
    check_query(backend, case)
    check_update(backend, case)


@law("2", many_neighbors)
def more_neighbors_than_slots(backend: Backend, case: Case) -> None:
    """Asking for more neighbors than slots gives as many as there are slots."""
    assert run_query(backend, case).slots.shape == (len(case.queries), case.config.slots)
    check_query(backend, case)


@law("2", full)
def ties_go_to_the_lowest_slot(backend: Backend, case: Case) -> None:
    """With one key everywhere, neighbors come in the order of their slots."""
    keys = np.tile(direction(case.config.key_dim, int(case.targets[0])), (case.config.slots, 1))
    case = dataclasses.replace(case, state={**case.state, "keys": keys})
    found = run_query(backend, case)
    same("slots", found.slots, np.tile(np.arange(case.config.k), (len(case.queries), 1)))


@law("2")
def weights_sum_to_one(backend: Backend, case: Case) -> None:
    """Over the neighbors there are; nothing elsewhere."""
    found = run_query(backend, case)
    close("sums", found.weights.sum(axis=1), found.found, 2 * tolerance.gamma(case.config.k + 2))


@law("2")
def query_changes_nothing(backend: Backend, case: Case) -> None:
    """A query only reads."""
    state = backend.from_numpy(case.config, case.state)
    backend.query(case.config, state, case.queries, case.targets, case.mask)
    same_state(backend.to_numpy(state), case.state)


# Rule 3: loss


@law("3", full)
def positive_beyond_the_neighbors(backend: Backend, case: Case) -> None:
    """If none of the k has the target's value, the best slot anywhere that has it is the positive."""
    values = np.zeros(case.config.slots, np.int32)
    values[-1] = 7
    targets = np.full_like(case.targets, 7)
    check_query(backend, dataclasses.replace(case, state={**case.state, "values": values}, targets=targets))


@law("3", gradients=True)
def gradient_agrees(backend: Backend, case: Case) -> None:
    """The gradient of the loss by the rows, against the oracle's formula; 0 for rows that do not count."""
    queries = case.queries.copy()
    queries[0] = np.nan if case.targets[0] % 2 else 0.0
    case = dataclasses.replace(case, queries=queries)
    got = gradient_of(backend, case)
    state = oracle.from_numpy(case.config, case.state)
    for row, query in enumerate(queries):
        if row == 0 or not case.mask[row]:
            same(f"gradient of row {row}", got[row], np.zeros_like(query))
        else:
            expected = loss_gradient(case.config, state, query, int(case.targets[row]))
            bound = tolerance.gradient(case.config.key_dim, float(np.linalg.norm(query.astype(np.float64))))
            close(f"gradient of row {row}", got[row], expected, bound)


@law("3", lambda sizes: cases(sizes, exact=False, full=True, masked=False), gradients=True)
def gradient_is_the_slope(backend: Backend, case: Case) -> None:
    """The gradient against central differences of the oracle's loss, in f64 rows of norm 1.

    With a step h the differences of the hinge are off by the third derivative, of order h^2, and by the rounding of two f32
    losses over 2 h; rows nearer than h to a kink (another neighbor, or the hinge) are left out.
    """
    norms = np.linalg.norm(case.queries.astype(np.float64), axis=1, keepdims=True)
    case = dataclasses.replace(case, queries=(case.queries / norms).astype(np.float32))
    got = gradient_of(backend, case)
    state = oracle.from_numpy(case.config, case.state)
    h = 2.0**-9
    generator = np.random.default_rng(int(case.state["ages"][0]))
    for row, query in enumerate(case.queries):
        along = generator.normal(size=query.shape)
        along /= np.linalg.norm(along)
        points = np.stack([query + place * h * along for place in (-2, -1, 0, 1, 2)])
        targets = np.repeat(case.targets[row], 5)
        losses = np.asarray(oracle.query(case.config, state, points, targets).loss, np.float64)
        bends = np.abs(np.diff(losses, 2))
        if bends.max() < 12 * h * h:
            slope = (losses[3] - losses[1]) / (2 * h)
            bound = 16 * h * h + 2 * tolerance.UNIT * (2 + case.config.margin) / h
            close(f"slope of row {row}", got[row].astype(np.float64) @ along, slope, bound)


def gradient_of(backend: Backend, case: Case) -> NDArray[Any]:
    """The backend's gradient [B, key_dim] of the summed loss."""
    state = backend.from_numpy(case.config, case.state)
    return as_numpy(backend.loss_gradient(case.config, state, case.queries, case.targets, case.mask))


# Rules 4, 5 and 6: update


@law("4, 5, 6")
def update_agrees(backend: Backend, case: Case) -> None:
    """The whole memory after an update, and its report."""
    check_update(backend, case)


@law("4, 5, 6")
def lookup_can_be_reused(backend: Backend, case: Case) -> None:
    """An update with the lookup of the same state is the update that searches for itself."""
    check_update(backend, case, reuse=True)


@law("4", full)
def hits_move_the_key(backend: Backend, case: Case) -> None:
    """Rows with the value of their nearest neighbor are hits, and several may hit one slot."""
    nearest = run_query(backend, case).values[:, 0].astype(np.int32)
    case = dataclasses.replace(case, targets=nearest)
    state, report = run_update(backend, case)
    assert report.hit.all()
    same("values", state["values"], case.state["values"])
    check_update(backend, case)


@law("4", full)
def order_of_hits_is_no_matter(backend: Backend, case: Case) -> None:
    """A batch of hits backwards leaves the same memory; keys merged from rows that differ, within rounding."""
    nearest = run_query(backend, case).values[:, 0].astype(np.int32)
    case = dataclasses.replace(case, targets=nearest)
    check_update(backend, case.rows(np.arange(len(nearest))[::-1]))


@law("4", full)
def opposites_leave_the_key(backend: Backend, case: Case) -> None:
    """A hit that cancels its key leaves it as it is; the slot counts as used."""
    keys = np.tile(direction(case.config.key_dim, 0), (case.config.slots, 1))
    state = {**case.state, "keys": keys, "values": np.zeros_like(case.state["values"])}
    queries = case.queries.copy()
    queries[:] = np.nan
    queries[-1] = -keys[0]
    case = dataclasses.replace(case, state=state, queries=queries, targets=np.zeros_like(case.targets))
    after, report = run_update(backend, case)
    assert report.hit[-1]
    same("keys", after["keys"], keys)
    same("age", after["ages"][0], 0)


@law("5", full)
def misses_evict_the_oldest(backend: Backend, case: Case) -> None:
    """Rows of a new value each take the slot whose age and noise are largest."""
    check_update(backend, dataclasses.replace(case, targets=np.arange(len(case.targets), dtype=np.int32) + 10))


@law("5")
def duplicates_take_slots_of_their_own(backend: Backend, case: Case) -> None:
    """A batch of one row again and again, of a new value: each is a miss, as the memory was before the batch."""
    queries = np.tile(case.queries[:1], (len(case.queries), 1))
    case = dataclasses.replace(case, queries=queries, targets=np.full_like(case.targets, 9)).everyone()
    _, report = run_update(backend, case)
    slots = report.slots[report.written]
    assert len(set(slots.tolist())) == len(slots) == min(len(queries), case.config.slots)
    check_update(backend, case)


@law("5", crowded)
def misses_beyond_the_slots_are_dropped(backend: Backend, case: Case) -> None:
    """When slots run out the remaining rows are dropped and counted."""
    case = dataclasses.replace(case, targets=np.arange(len(case.targets), dtype=np.int32) + 10)
    _, report = run_update(backend, case)
    assert report.dropped == len(case.targets) - case.config.slots
    check_update(backend, case)


# Rule 7: noise


@law("7", full)
def noise_agrees_to_the_bit(backend: Backend, case: Case) -> None:
    """With all ages equal the order of eviction is the order of the noise: here of every slot."""
    repeats = -(-case.config.slots // len(case.queries))
    state = {**case.state, "ages": np.full(case.config.slots, case.state["ages"][0], np.int32)}
    for place in range(repeats):
        targets = np.arange(len(case.queries), dtype=np.int32) + 10
        step = (case.state["step"] + 977 * place) % 2**32
        check_update(backend, dataclasses.replace(case, state={**state, "step": step}, targets=targets))


# Rule 8: mask


@law("8")
def masked_rows_are_not_there(backend: Backend, case: Case) -> None:
    """What stands in a masked row changes nothing to the bit, be it NaN or a target out of range."""
    queries, targets = case.queries.copy(), case.targets.copy()
    queries[~case.mask] = np.nan
    targets[~case.mask] = -5
    padded = dataclasses.replace(case, queries=queries, targets=targets)
    for got, expected in zip(run_query(backend, padded), run_query(backend, case), strict=True):
        same("query", got, expected)
    (state, report), (plain, plain_report) = run_update(backend, padded), run_update(backend, case)
    same_state(state, plain)
    for name, got, expected in zip(report._fields, report, plain_report, strict=True):
        same(name, got, expected)


@law("8", lambda sizes: cases(sizes, only=(0,)))
def padding_changes_nothing(backend: Backend, case: Case) -> None:
    """A batch with masked rows writes what the batch without them writes."""
    if not case.mask.any():
        return
    short = case.rows(case.mask)
    (state, report), (plain, plain_report) = run_update(backend, case), run_update(backend, short)
    for name in ("values", "ages", "filled", "step"):
        same(name, state[name], plain[name])
    same("slots", report.slots[case.mask], plain_report.slots)
    check_update(backend, case)
    check_update(backend, short)


@law("8")
def all_masked_changes_nothing(backend: Backend, case: Case) -> None:
    """No row, no write, no step: the memory is the same to the bit."""
    case = dataclasses.replace(case, mask=np.zeros_like(case.mask))
    state, report = run_update(backend, case)
    same_state(state, case.state)
    assert not report.written.any()
    assert not run_query(backend, case).found.any()


# Search, and states that travel


@law("2, 3", lambda sizes: cases((CHUNKED,), exact=True, full=True, masked=False), costly=True)
def scan_in_chunks_agrees(backend: Backend, case: Case) -> None:
    """A memory larger than one chunk: neighbors in either chunk and where the chunks overlap, ties across them."""
    slots = case.config.slots
    generator = np.random.default_rng(int(case.state["ages"][0]))
    last_chunk = generator.integers(slots // 2, slots, 4)
    chosen = np.concatenate([last_chunk, np.array([CHUNK - 1, slots - CHUNK, 0])[: case.targets[0] % 4]])
    keys = np.tile(-direction(4, 0), (slots, 1))
    keys[chosen] = direction(4, 0)
    values = np.zeros(slots, np.int32)
    values[chosen] = generator.integers(1, 3, len(chosen))
    queries = np.tile(direction(4, 0), (len(case.queries), 1))
    state = {**case.state, "keys": keys, "values": values}
    case = dataclasses.replace(case, state=state, queries=queries, targets=np.array([0, 1, 2], np.int32))
    check_query(backend, case)
    check_update(backend, case)


@law("state")
def states_travel(backend: Backend, case: Case) -> None:
    """To NumPy and back, through a file, and through a copy: the same to the bit."""
    state = backend.from_numpy(case.config, case.state)
    same_state(backend.to_numpy(state), case.state)
    kept = backend.copy(state)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memory.safetensors"
        raremem.save(path, case.config, state, backend)
        config, loaded = raremem.load(path, backend)
    assert config == case.config
    same_state(backend.to_numpy(loaded), case.state)
    backend.update(case.config, state, case.queries, case.targets, case.mask)
    same_state(backend.to_numpy(kept), case.state)


@law("errors")
def bad_input_changes_nothing(backend: Backend, case: Case) -> None:
    """Wrong shapes, dtypes and targets raise the error of their cause, and the memory is as it was."""
    config = case.config
    state = backend.from_numpy(config, case.state)
    queries, targets, mask = case.queries, case.targets, np.ones_like(case.mask)
    wrong: list[tuple[Any, Any, Any, Any]] = [
        (raremem.ShapeError, queries[:, :-1] if config.key_dim > 1 else queries[0], targets, mask),
        (raremem.ShapeError, queries[:0], targets[:0], mask[:0]),
        (raremem.ShapeError, queries, targets[:-1], mask),
        (raremem.ShapeError, queries, targets, mask[:, None]),
        (raremem.DTypeError, queries.astype(np.int32), targets, mask),
        (raremem.DTypeError, queries, targets.astype(np.float32), mask),
        (raremem.DTypeError, queries, targets, mask.astype(np.int32)),
        (raremem.TargetError, queries, targets - 100, mask),
        (raremem.TargetError, queries, targets.astype(np.int64) + 2**31, mask),
    ]
    for error, *arguments in wrong:
        for call in (backend.query, backend.update):
            try:
                call(config, state, *arguments)
            except error as raised:
                assert "expected" in str(raised), raised
            else:
                raise AssertionError(f"{call.__name__} took what should raise {error.__name__}")
    same_state(backend.to_numpy(state), case.state)
    other = dataclasses.replace(config, slots=config.slots + 1)
    try:
        backend.query(other, state, queries)
    except raremem.StateError:
        pass
    else:
        raise AssertionError("a state of another config was taken")
