"""Laws of rule 15: scores of classes."""

from __future__ import annotations

import numpy as np

import raremem
from raremem.backend import Backend
from raremem.reference import tolerance
from raremem.reference.comparison import as_numpy, close, same
from raremem.reference.laws.registry import general, law
from raremem.reference.oracle import backend as oracle
from raremem.reference.rules import nearest_first, normalize, scores
from raremem.reference.strategies import Case


@law("15")
def scores_are_sums_of_weights(backend: Backend, case: Case) -> None:
    """For fewer classes than there are values, for as many, and for more; twice the same to the bit."""
    _check(backend, case)


@law("15", general)
def scores_of_any_rows(backend: Backend, case: Case) -> None:
    """The same on arbitrary rows."""
    _check(backend, case)


def _check(backend: Backend, case: Case) -> None:
    config = case.config
    state, memory = backend.from_numpy(config, case.state), oracle.from_numpy(config, case.state)
    found = backend.query(config, state, case.queries, None, case.mask)
    accepted, values = as_numpy(found.accepted), case.state["values"]
    relative = tolerance.score(config.key_dim, config.k, config.softmax_temperature, case.exact)
    every = int(max(values.max(), 0)) + 1
    for classes in (1, 2, every, np.int64(every + 5)):
        got = as_numpy(found.scores(classes))
        assert got.dtype == np.float32, got.dtype
        same("scores, asked for again,", found.scores(classes), got)
        expected = np.zeros((len(case.queries), classes))
        for row in np.flatnonzero(accepted):
            unit = normalize(case.queries[row])
            assert unit is not None
            expected[row] = scores(config, nearest_first(unit, memory)[: config.k], int(classes))
        close(f"scores of {classes} classes", got, expected, relative * expected + config.k * 2.0**-126)
    close("sums", got.sum(axis=1), as_numpy(found.found), (every + 5) * tolerance.gamma(config.k + 2) + relative)


@law("15")
def classes_are_counted(backend: Backend, case: Case) -> None:
    """What is no number of classes is refused."""
    found = backend.query(case.config, backend.from_numpy(case.config, case.state), case.queries)
    for wrong in (0, -1, True, 2.0, "3", None, [3]):
        try:
            found.scores(wrong)  # type: ignore[arg-type]
        except raremem.ShapeError as error:
            assert "expected a whole number" in str(error), error
        else:
            raise AssertionError(f"{wrong!r} was taken for a number of classes")
