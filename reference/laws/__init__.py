"""The laws: what every backend must do, one body each, run on any backend and in any mode.

A law is a function `(backend, case)` that raises AssertionError, the strategy its cases come from, and the rule it holds.
`run` tries one on a backend; `conformance/test_laws.py` runs all of them on all. They stand by rule: `lookup` (1 and 2),
`loss` (3), `writing` (4 to 8), `keeping` (13), `forgetting` (14), `scoring` (15), `states` (search over more than one chunk,
states that travel, bad input), `loading` (sets in one call, other numbers of slots), `payloads` (what is kept beside slots),
`refusals` (what is refused, and what just is not), `belonging` (12).
"""

from raremem.reference.laws import (  # noqa: F401  each enters its laws
    belonging,
    forgetting,
    gradients,
    keeping,
    living,
    loading,
    lookup,
    loss,
    payloads,
    refusals,
    scoring,
    states,
    writing,
)
from raremem.reference.laws.law import Law
from raremem.reference.laws.registry import LAWS, run

__all__ = ["LAWS", "Law", "run"]
