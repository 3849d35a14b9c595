"""Long random programs on two backends side by side: queries, updates, padding, round trips between the two, files.

The rows are of the `exact` kind and each direction has a value of its own, so that every hit merges equal rows and keys stay
exact: the two memories must be equal to the bit after every step, however long the program. Rows of any value come in by
`update_any`, where merged keys may differ by rounding: both must follow the oracle, and the program goes on without them.
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


def program_machine(left: Backend, right: Backend) -> type[RuleBasedStateMachine]:
    """The machine for two backends."""

    class Program(RuleBasedStateMachine):
        size: Size

        @initialize(size=st.sampled_from(FEW_SIZES))
        def start(self, size: Size) -> None:
            """Two empty memories."""
            self.size = size
            self.states = {backend: backend.init(size.config) for backend in (left, right)}

        def batch(self, codes: list[int], present: list[bool]) -> tuple[Any, Any, Any]:
            """A batch in which the value says which direction the row has."""
            rows = np.stack([direction(self.size.config.key_dim, code) for code in codes[: self.size.batch]])
            targets = np.array([_name_of(row) for row in rows], np.int32)
            return rows, targets, np.array(present[: self.size.batch])

        @rule(codes=_lists(st.integers(0, 40)), present=_lists(st.booleans()))
        def query(self, codes: list[int], present: list[bool]) -> None:
            """Both answer alike."""
            batch = self.batch(codes, present)
            found = [
                Lookup(*(as_numpy(field) for field in backend.query(self.size.config, self.states[backend], *batch)))
                for backend in (left, right)
            ]
            same_lookup(found[0], found[1], self.size.config)

        @rule(
            codes=_lists(st.integers(0, 40)),
            present=_lists(st.booleans()),
            reuse=st.booleans(),
        )
        def update(self, codes: list[int], present: list[bool], reuse: bool) -> None:
            """Both write alike."""
            batch = self.batch(codes, present)
            reports = []
            for backend in (left, right):
                state = self.states[backend]
                found = backend.query(self.size.config, state, *batch) if reuse else None
                self.states[backend], report = backend.update(self.size.config, state, *batch, found)
                reports.append(report)
            for name, one, other in zip(reports[0]._fields, *reports, strict=True):
                same(name, one, other)
            self.compare()

        @rule(codes=_lists(st.integers(0, 40)), labels=_lists(st.integers(0, 3)))
        def update_any(self, codes: list[int], labels: list[int]) -> None:
            """Both follow the oracle where rows that differ are merged; the memories themselves stay as they are."""
            batch = self.size.batch
            rows = np.stack([direction(self.size.config.key_dim, code) for code in codes[:batch]])
            values = np.array(labels[:batch], np.int32)
            before = left.to_numpy(self.states[left])
            case = Case(self.size.config, before, rows, values, np.ones(batch, np.bool_), exact=True)
            for backend in (left, right):
                check_update(backend, case)

        @rule()
        def exchange(self) -> None:
            """Each goes on from the other's memory."""
            portable = {backend: backend.to_numpy(self.states[backend]) for backend in (left, right)}
            self.states = {
                left: left.from_numpy(self.size.config, portable[right]),
                right: right.from_numpy(self.size.config, portable[left]),
            }
            self.compare()

        @rule()
        def save_and_load(self) -> None:
            """Equal memories make equal files, and each goes on from the other's."""
            with tempfile.TemporaryDirectory() as folder:
                paths = {backend: Path(folder) / str(place) for place, backend in enumerate((left, right))}
                for backend, path in paths.items():
                    raremem.save(path, self.size.config, self.states[backend], backend)
                assert paths[left].read_bytes() == paths[right].read_bytes()
                self.states = {
                    left: raremem.load(paths[right], left)[1],
                    right: raremem.load(paths[left], right)[1],
                }
            self.compare()

        def compare(self) -> None:
            """Equal to the bit."""
            same_state(left.to_numpy(self.states[left]), right.to_numpy(self.states[right]))

    return Program


def _lists(items: Any) -> Any:
    return st.lists(items, min_size=12, max_size=12)


def _name_of(row: Any) -> int:
    """A whole number for a direction, the same for the same direction and no other (of 16 entries, 3**16 < 2**31)."""
    digits = np.sign(row).astype(np.int64) + 1
    return int(digits @ 3 ** np.arange(len(row)))
