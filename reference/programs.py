"""Long random programs on two backends side by side: queries, updates, padding, round trips between the two, files.

The rows are of the `exact` kind and each direction has a value of its own. So every hit merges equal rows, keys stay exact, and
the two memories must be equal to the bit after every step, however long the program. Rows of any value come in by `update_any`,
where merged keys may differ by rounding: both backends must follow the oracle, and the program goes on without those rows.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

import raremem
from raremem.backend import Backend
from raremem.reference.comparison import as_numpy, check_update, same, same_lookup, same_state
from raremem.reference.strategies import FEW_SIZES, Case, Size, direction
from raremem.state import Lookup


def _lists(items: Any) -> Any:
    return st.lists(items, min_size=12, max_size=12)


CODES, PRESENT = _lists(st.integers(0, 40)), _lists(st.booleans())
"""Numbers of directions, and whether each row is there."""


class Program(RuleBasedStateMachine):
    """A memory on each of two backends, which `program_machine` sets."""

    left: Backend
    right: Backend
    size: Size

    @initialize(size=st.sampled_from(FEW_SIZES))
    def start(self, size: Size) -> None:
        """Two empty memories."""
        self.size = size
        self.states = {backend: backend.init(size.config) for backend in (self.left, self.right)}

    def rows(self, codes: list[int]) -> Any:
        """A batch of the directions with these numbers."""
        return np.stack([direction(self.size.config.key_dim, code) for code in codes[: self.size.batch]])

    def batch(self, codes: list[int], present: list[bool]) -> tuple[Any, Any, Any]:
        """A batch in which the value says which direction the row has."""
        rows = self.rows(codes)
        return rows, np.array([_number_of(row) for row in rows], np.int32), np.array(present[: self.size.batch])

    @rule(codes=CODES, present=PRESENT)
    def query(self, codes: list[int], present: list[bool]) -> None:
        """Both answer alike."""
        batch = self.batch(codes, present)
        found = [
            Lookup(*map(as_numpy, backend.query(self.size.config, state, *batch))) for backend, state in self.states.items()
        ]
        same_lookup(found[0], found[1], self.size.config)

    @rule(codes=CODES, present=PRESENT, reuse=st.booleans())
    def update(self, codes: list[int], present: list[bool], reuse: bool) -> None:
        """Both write alike."""
        config, batch, reports = self.size.config, self.batch(codes, present), []
        for backend, state in self.states.items():
            found = backend.query(config, state, *batch) if reuse else None
            self.states[backend], report = backend.update(config, state, *batch, found)
            reports.append(report)
        for name, one, other in zip(reports[0]._fields, *reports, strict=True):
            same(name, one, other)
        self.compare()

    @rule(codes=CODES, labels=_lists(st.integers(0, 3)))
    def update_any(self, codes: list[int], labels: list[int]) -> None:
        """Both follow the oracle where rows that differ are merged; the memories themselves stay as they are."""
        before, batch = self.left.to_numpy(self.states[self.left]), self.size.batch
        values, mask = np.array(labels[:batch], np.int32), np.ones(batch, np.bool_)
        for backend in self.states:
            check_update(backend, Case(self.size.config, before, self.rows(codes), values, mask, exact=True))

    @rule()
    def exchange(self) -> None:
        """Each goes on from the other's memory."""
        left, right = (backend.to_numpy(state) for backend, state in self.states.items())
        self.states = {
            self.left: self.left.from_numpy(self.size.config, right),
            self.right: self.right.from_numpy(self.size.config, left),
        }
        self.compare()

    @rule()
    def save_and_load(self) -> None:
        """Equal memories make equal files, and each goes on from the other's."""
        with tempfile.TemporaryDirectory() as folder:
            left, right = Path(folder) / "left", Path(folder) / "right"
            for path, (backend, state) in zip((left, right), self.states.items(), strict=True):
                raremem.save(path, self.size.config, state, backend)
            assert left.read_bytes() == right.read_bytes()
            self.states = {
                self.left: raremem.load(right, self.left)[1],
                self.right: raremem.load(left, self.right)[1],
            }
        self.compare()

    def compare(self) -> None:
        """Equal to the bit."""
        same_state(*(backend.to_numpy(state) for backend, state in self.states.items()))


def program_machine(left: Backend, right: Backend) -> type[Program]:
    """The machine for two backends."""
    return type("Program", (Program,), {"left": left, "right": right})


def _number_of(row: Any) -> int:
    """A whole number for a direction, the same for the same direction and no other (of 16 entries, 3**16 < 2**31)."""
    digits = np.sign(row).astype(np.int64) + 1
    return int(digits @ 3 ** np.arange(len(row)))
