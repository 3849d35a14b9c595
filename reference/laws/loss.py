"""Laws of rule 3: both losses, and their gradients."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from raremem.backend import Backend
from raremem.config import MemoryConfig
from raremem.reference import tolerance
from raremem.reference.comparison import (
    as_numpy,
    check_query,
    check_query_closely,
    close,
    run_query,
    same,
    same_lookup,
)
from raremem.reference.laws.registry import full, law
from raremem.reference.oracle import backend as oracle
from raremem.reference.rules import loss_gradient
from raremem.reference.strategies import MANY_SIZES, Case, Size, cases, with_config

MANY_VALUES = Size(MemoryConfig(192, 4, neighbors=2, margin=2.0, softmax_temperature=4.0), 24)
"""Enough rows and slots for a search of the slots of each target by themselves. The margin keeps every hinge open."""


def many_values(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """Full memories of `MANY_VALUES`; where sizes are few, of the first of them."""
    return cases((MANY_VALUES,) if sizes is MANY_SIZES else sizes[:1], full=True, masked=False)


@law("3", full)
def positive_beyond_the_neighbors(backend: Backend, case: Case) -> None:
    """If none of the k neighbors has the target's value, the positive is the most similar slot that has it."""
    values = np.zeros(case.config.slots, np.int32)
    values[-1] = 7
    targets = np.full_like(case.targets, 7)
    check_query(backend, dataclasses.replace(case, state={**case.state, "values": values}, targets=targets))


@law("3", many_values)
def positives_of_many_values(backend: Backend, case: Case) -> None:
    """Every row has a target of its own, which few slots hold, so most positives are beyond the neighbors. Of equally similar
    slots the lowest has its key in the gradient."""
    generator = np.random.default_rng(case.state["step"])
    values = generator.integers(0, len(case.queries), case.config.slots).astype(np.int32)
    targets = generator.permutation(len(case.queries)).astype(np.int32)
    case = dataclasses.replace(case, state={**case.state, "values": values}, targets=targets)
    check_query(backend, case)
    if "gradients" in backend.capabilities:
        gradient_agrees(backend, case)


@law("3", needs="gradients")
def gradient_agrees(backend: Backend, case: Case) -> None:
    """The gradient of the loss by the rows is that of the oracle's formula; 0 for rows that were masked or rejected."""
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
            bound = tolerance.gradient(case.config, float(np.linalg.norm(query.astype(np.float64))))
            close(f"gradient of row {row}", got[row], expected, bound)


@law("3", lambda sizes: cases(sizes, exact=False, full=True, masked=False), needs="gradients")
def gradient_is_the_slope(backend: Backend, case: Case) -> None:
    """The gradient is the central difference of the oracle's loss, for f64 rows of norm 1.

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


def likelihood(sizes: tuple[Size, ...], **options: Any) -> st.SearchStrategy[Case]:
    """Cases with `loss="nll"`."""
    return cases(with_config(sizes, loss="nll"), **options)


@law("3", likelihood)
def likelihood_agrees(backend: Backend, case: Case) -> None:
    """The negative log-likelihood equals the oracle's, with ties and with targets beyond the neighbors."""
    check_query(backend, case)
    positive_beyond_the_neighbors(backend, case)


@law("3", lambda sizes: likelihood(sizes, exact=False))
def likelihood_agrees_on_any_rows(backend: Backend, case: Case) -> None:
    """The same on arbitrary rows, within the derived tolerance."""
    check_query_closely(backend, case)


@law("3", lambda sizes: likelihood(sizes, only=(0, 2)))
def likelihood_changes_the_loss_only(backend: Backend, case: Case) -> None:
    """Under `loss="nll"` all else in a lookup is as under the margin loss."""
    margin = dataclasses.replace(case, config=dataclasses.replace(case.config, loss="margin"))
    got, expected = (run_query(backend, each)._replace(loss=None) for each in (case, margin))
    same_lookup(got, expected, case.config)


@law("3", lambda sizes: likelihood(sizes, only=(0, 2)), needs="gradients")
def likelihood_gradient_agrees(backend: Backend, case: Case) -> None:
    """Its gradient by the rows is that of the oracle's formula; 0 for rows that were masked or rejected."""
    gradient_agrees(backend, case)


@law("3", lambda sizes: likelihood(sizes, only=(0,)))
def likelihood_is_finite_at_any_temperature(backend: Backend, case: Case) -> None:
    """At temperature 4096, where weights vanish in f32, the loss is right and its gradient finite."""
    case = dataclasses.replace(case, config=dataclasses.replace(case.config, softmax_temperature=4096.0))
    check_query(backend, case)
    if "gradients" in backend.capabilities:
        assert np.isfinite(gradient_of(backend, case)).all()


def gradient_of(backend: Backend, case: Case) -> NDArray[Any]:
    """The backend's gradient [B, key_dim] of the summed loss."""
    state = backend.from_numpy(case.config, case.state)
    return as_numpy(backend.loss_gradient(case.config, state, case.queries, case.targets, case.mask))
