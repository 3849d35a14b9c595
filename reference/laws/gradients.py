"""Laws of gradients: of similarities, weights and recalls, over time, and of keys, which have none."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raremem.backend import Backend
from raremem.config import MemoryConfig
from raremem.reference import tolerance
from raremem.reference.comparison import as_numpy, close, same
from raremem.reference.laws.registry import full, general, law
from raremem.reference.oracle import backend as oracle
from raremem.reference.rules import (
    Neighbor,
    OracleState,
    gradient,
    nearest_first,
    normalize,
    pulls_of_similarities,
    pulls_of_weights,
)
from raremem.reference.strategies import Case, Size, cases
from raremem.state import Lookup

RETRIEVED = ("similarities", "weights", "recall", "scores")
CLASSES = 3
"""That are given a score: fewer than there are values."""
WIDE = Size(MemoryConfig(600, 128, neighbors=256), 64)
"""Enough rows, neighbors and entries, 2**21 numbers of keys, for a backend to choose another way than for few."""


@dataclasses.dataclass(frozen=True)
class Retrieved:
    """What is differentiated: something that was retrieved, times factors.

    Attributes:
        what: one of `RETRIEVED`.
        factors: [B, k], or [B, 3] for a recall and for scores.
        table: [values, 3], the embedding for a recall.
    """

    what: str
    factors: NDArray[np.float32]
    table: NDArray[np.float32]

    def of(self, backend: Backend, state: Any) -> Callable[[Lookup], Any]:
        """The function of a lookup that `Backend.gradient` takes."""
        factors, table = backend.own(self.factors, state), backend.own(self.table, state)

        def of(found: Lookup) -> Any:
            if self.what == "scores":
                return factors * found.scores(CLASSES)
            return factors * (found.recall(table) if self.what == "recall" else getattr(found, self.what))

        return of

    def pulls(self, config: MemoryConfig, row: int, neighbors: list[Neighbor]) -> list[tuple[int, float]]:
        """Its derivative by the similarity of each neighbor of a row, with the neighbor's slot."""
        factors = self.factors[row].astype(np.float64)
        if self.what == "similarities":
            return pulls_of_similarities(neighbors, factors)
        if self.what == "recall":
            factors = np.array([self.table[neighbor.value].astype(np.float64) @ factors for neighbor in neighbors])
        if self.what == "scores":
            factors = np.array([factors[neighbor.value] if neighbor.value < CLASSES else 0.0 for neighbor in neighbors])
        return pulls_of_weights(config, neighbors, factors)

    def largest(self, row: int) -> float:
        """The largest magnitude of a neighbor's factor."""
        factors = np.abs(self.factors[row].astype(np.float64))
        return float((np.abs(self.table) @ factors).max() if self.what == "recall" else factors.max())


def retrieved(case: Case, what: str) -> Retrieved:
    """One of `RETRIEVED`, times factors that are drawn by the step of the case."""
    generator = np.random.default_rng(case.state["step"])
    columns = {"recall": 3, "scores": CLASSES}.get(what, case.config.k)
    values = max(case.state["values"].max(), case.targets.max() + 30) + 1
    table = generator.normal(size=(int(values), 3)).astype(np.float32)
    return Retrieved(what, generator.normal(size=(len(case.queries), columns)).astype(np.float32), table)


@law("2, 3", general, needs="gradients")
def gradient_of_what_is_retrieved_agrees(backend: Backend, case: Case) -> None:
    """The gradients of similarities, weights, recall and scores by rows of f32 and f64 are those of the oracle's formula."""
    for place, kind in enumerate(RETRIEVED):
        wide = (case.state["step"] + place) % 2
        queries: Any = case.queries.astype(np.float64 if wide else np.float32)
        queries[-1] = np.nan if case.targets[0] % 2 else 0.0
        _check_gradient(backend, dataclasses.replace(case, queries=queries), retrieved(case, kind))


def _check_gradient(backend: Backend, case: Case, what: Retrieved) -> None:
    config, queries = case.config, case.queries
    state = backend.from_numpy(config, case.state)
    _, back = backend.gradient(config, state, queries, None, case.mask, what.of(backend, state))
    got = as_numpy(back())
    assert got.dtype == as_numpy(backend.own(queries, state)).dtype, f"a gradient in {got.dtype} by rows in {queries.dtype}"
    memory = oracle.from_numpy(config, case.state)
    for row, query in enumerate(queries):
        if row == len(queries) - 1 or not case.mask[row]:
            same(f"gradient of row {row}", got[row], np.zeros_like(query))
            continue
        expected = gradient(memory, query, what.pulls(config, row, _neighbors(config, memory, query)))
        norm = float(np.linalg.norm(query.astype(np.float64)))
        bound = tolerance.retrieved_gradient(config, what.what, what.largest(row), norm)
        close(f"gradient of {what.what}, row {row}", got[row], expected, bound)


@law("2, 3", lambda sizes: cases(sizes, exact=False, full=True, masked=False), needs="gradients")
def gradient_of_what_is_retrieved_is_the_slope(backend: Backend, case: Case) -> None:
    """The same gradients are central differences in f64. Points between which neighbors change are left out.

    With a step h they are off by the third derivative, of order h^2 (1 + temperature)^3 for each of the k terms; the gradient
    is off by the rounding of some sums of key_dim and of k terms in f32.
    """
    case = dataclasses.replace(case, config=dataclasses.replace(case.config, softmax_temperature=2.0))
    norms = np.linalg.norm(case.queries.astype(np.float64), axis=1, keepdims=True)
    case = dataclasses.replace(case, queries=(case.queries / norms).astype(np.float32))
    for kind in RETRIEVED:
        _check_slope(backend, case, retrieved(case, kind))


def _check_slope(backend: Backend, case: Case, what: Retrieved) -> None:
    config, queries, h = case.config, case.queries, 2.0**-12
    state = backend.from_numpy(config, case.state)
    _, back = backend.gradient(config, state, queries, None, None, what.of(backend, state))
    got = as_numpy(back()).astype(np.float64)
    memory = oracle.from_numpy(config, case.state)
    for row, query in enumerate(queries):
        along = np.random.default_rng(row).normal(size=query.shape)
        along /= np.linalg.norm(along)
        slots = [neighbor.slot for neighbor in _neighbors(config, memory, query)]
        points = [query.astype(np.float64) + place * h * along for place in (-1, 1)]
        if any([neighbor.slot for neighbor in _neighbors(config, memory, point)] != slots for point in points):
            continue
        below, above = (_value(config, case, what, row, slots, point) for point in points)
        scale = what.largest(row) * config.k * (1 + config.softmax_temperature) ** 3
        bound = scale * (16 * h * h + 64 * (config.key_dim + config.k) * tolerance.UNIT)
        close(f"slope of {what.what}, row {row}", got[row] @ along, (above - below) / (2 * h), bound)


def _neighbors(config: MemoryConfig, memory: OracleState, query: NDArray[Any]) -> list[Neighbor]:
    unit = normalize(query)
    assert unit is not None
    return nearest_first(unit, memory)[: config.k]


def _value(config: MemoryConfig, case: Case, what: Retrieved, row: int, slots: list[int], point: NDArray[np.float64]) -> float:
    """What is retrieved at a point, times its factors, in f64."""
    similarities = case.state["keys"][slots].astype(np.float64) @ (point / np.linalg.norm(point))
    factors = what.factors[row].astype(np.float64)
    if what.what == "similarities":
        return float(similarities @ factors)
    weights = np.exp(config.softmax_temperature * similarities)
    weights /= weights.sum()
    if what.what == "weights":
        return float(weights @ factors)
    if what.what == "scores":
        values = case.state["values"][slots]
        return float(weights @ np.where(values < CLASSES, factors[np.minimum(values, CLASSES - 1)], 0.0))
    return float(weights @ what.table[case.state["values"][slots]].astype(np.float64) @ factors)


@law("11", lambda sizes: cases(sizes, exact=False), needs="gradients")
def gradient_belongs_to_its_query(backend: Backend, case: Case) -> None:
    """A gradient is the same to the bit before and after updates; so is what was found."""
    _gradients_wait(backend, case)


@law("11", lambda sizes: cases((WIDE,), exact=False, full=True, masked=False), needs="gradients", costly=True)
def gradient_of_many_rows_belongs_to_its_query(backend: Backend, case: Case) -> None:
    """The same with so many rows and neighbors that a backend may choose another way."""
    _gradients_wait(backend, case)


def _gradients_wait(backend: Backend, case: Case) -> None:
    """Query and update at several time steps; take gradients at once, or all at the end; compare."""
    config, outcomes, kinds = case.config, [], ("loss", *RETRIEVED)
    for at_once in (True, False):
        state = backend.from_numpy(config, case.state)
        waiting: list[tuple[Lookup, Callable[[], Any]]] = []
        taken: list[NDArray[Any]] = []
        for time, kind in enumerate(kinds):
            of = retrieved(case, kind).of(backend, state) if time else (lambda found: found.loss)
            targets = case.targets + 10 * time
            waiting.append(backend.gradient(config, state, case.queries + np.float32(time), targets, case.mask, of))
            if at_once:
                taken.append(np.array(as_numpy(waiting[-1][1]())))
            lookup = waiting[-1][0] if time == 1 else None
            state, _ = backend.update(config, state, case.queries + np.float32(time), targets, case.mask, lookup)
        if not at_once:
            taken = [np.array(as_numpy(back())) for _, back in waiting]
        outcomes.append(taken)
    for time, (early, late) in enumerate(zip(*outcomes, strict=True)):
        same(f"gradient of time step {time}, taken after the last update,", late, early)


@law("3", general, needs="gradients")
def no_gradient_reaches_the_keys(backend: Backend, case: Case) -> None:
    """Keys are constants: the gradients of the loss and of a recall by keys are 0."""
    state = backend.from_numpy(case.config, case.state)
    for of in (lambda found: found.loss, retrieved(case, "recall").of(backend, state)):
        _, back = backend.gradient(case.config, state, case.queries, case.targets, case.mask, of, by="keys")
        got = as_numpy(back())
        assert not got.any(), f"a gradient reaches the keys: {got[got.any(axis=1)][:3]}"


@law("11", full, costly=True)
def what_was_given_is_let_go(backend: Backend, case: Case) -> None:
    """After a call nothing refers to its input, and the memory is part of no graph of gradients."""
    config = case.config
    state = backend.from_numpy(config, case.state)
    given: tuple[Any, Any, Any] = (
        backend.own(case.queries.copy(), state),
        backend.own(case.targets.copy(), state),
        backend.own(case.mask.copy(), state),
    )
    if hasattr(given[0], "requires_grad_"):
        given[0].requires_grad_()
    for reuse in (True, False):
        found = backend.query(config, state, *given)
        state, report = backend.update(config, state, *given, found if reuse else None)
    held = [array for array in (state if isinstance(state, tuple) else ()) if getattr(array, "requires_grad", False)]
    assert not held, "the memory is part of a graph of gradients"
    references: list[weakref.ref[Any]] = []
    with contextlib.suppress(TypeError):  # of arrays that cannot be referred to weakly
        references += [weakref.ref(array) for array in given]
    del given, found, report
    gc.collect()
    assert not any(reference() is not None for reference in references), "an array that was given is still referred to"
    backend.to_numpy(state)
