"""The law of what a user keeps for each slot, beside a memory, by the pattern of docs/fields.md."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import raremem
from raremem.backend import Backend
from raremem.config import MemoryConfig
from raremem.reference.comparison import as_numpy
from raremem.reference.laws.registry import law
from raremem.reference.strategies import Case
from raremem.state import ForgetReport, PortableState, UpdateReport

CLASSES = 5
NOTHING = -1


class Payload:
    """For each slot the number of the row that wrote it, kept as a user keeps it; `rows` [numbers, key_dim] by number."""

    def __init__(self, slots: int, rows: NDArray[np.float32]) -> None:
        self.numbers = np.full(slots, NOTHING)
        self.rows = rows

    def after_update(self, report: UpdateReport, numbers: NDArray[np.intp]) -> None:
        """The rows with these numbers were written."""
        written = as_numpy(report.written)
        self.numbers[as_numpy(report.slots)[written]] = numbers[written]

    def after_forgetting(self, report: ForgetReport) -> None:
        """Some slots are empty now."""
        self.numbers[as_numpy(report.forgotten)] = NOTHING

    def after_resizing(self, kept: NDArray[np.int32]) -> None:
        """Each slot is what this one was."""
        self.numbers = np.where(kept >= 0, self.numbers[kept], NOTHING)

    def check(self, portable: PortableState) -> None:
        """Check that every filled slot, and no other, has the number of a row of its key and value."""
        filled = portable["filled"]
        assert np.array_equal(self.numbers != NOTHING, filled), f"{self.numbers} is kept, and {filled} are filled"
        there = self.numbers[filled]
        assert np.array_equal(portable["values"][filled], value_of(there)), "the value is that of another row"
        units = self.rows[there] / np.linalg.norm(self.rows[there].astype(np.float64), axis=1, keepdims=True)
        off = np.abs(portable["keys"][filled] - units).max(initial=0)
        assert off < 1e-5, f"a key is {off} off that of the row that is kept"


def value_of(numbers: NDArray[np.intp]) -> NDArray[np.int32]:
    """The value of a row by its number."""
    return (numbers % CLASSES).astype(np.int32)


def rows_of(count: int, config: MemoryConfig, seed: int) -> NDArray[np.float32]:
    """Rows [count, key_dim] by number; where hits merge, those of a value are all alike, so that keys stay what they are."""
    rows = np.random.default_rng(seed).normal(size=(count, config.key_dim)).astype(np.float32)
    return rows if config.write == "keep" else rows[np.arange(count) % CLASSES]


@law("5, 13, 14, state", costly=True)
def what_is_kept_beside_slots_follows(backend: Backend, case: Case) -> None:
    """Through updates, evictions, forgetting, resizing and files each slot's payload is of the row that wrote it."""
    for write in ("keep", "merge"):
        _Life(backend, replace(case.config, write=write), len(case.targets), case.state["step"] % 2**32).live()


class _Life:
    """A memory and a payload."""

    def __init__(self, backend: Backend, config: MemoryConfig, batch: int, seed: int) -> None:
        self.backend, self.config, self.batch, self.next = backend, config, batch, 0
        self.state: Any = backend.init(config)
        self.payload = Payload(config.slots, rows_of(25 * batch, config, seed))
        self.draw = np.random.default_rng(seed)

    def live(self) -> None:
        self.learn()
        self.forget(values=self.draw.integers(0, CLASSES, 2).astype(np.int32))
        self.learn()
        self.resize(self.config.slots + 3)
        self.learn()
        self.forget(older_than=1)
        self.save_and_load()
        self.learn()
        self.forget(slots=self.draw.integers(-1, self.config.slots, 2).astype(np.int32))
        self.resize(max(1, self.config.slots // 2))
        self.learn()

    def check(self) -> None:
        self.payload.check(self.backend.to_numpy(self.state))

    def learn(self) -> None:
        """Updates, some rows masked, till slots have been evicted or there were five."""
        for _ in range(5):
            numbers = np.arange(self.next, self.next + self.batch)
            self.next += self.batch
            rows, mask = self.payload.rows[numbers], self.draw.random(self.batch) < 0.8
            self.state, report = self.backend.update(self.config, self.state, rows, value_of(numbers), mask)
            self.payload.after_update(report, numbers)
            self.check()
            if int(report.evicted):
                break

    def forget(self, **named: Any) -> None:
        self.state, report = self.backend.forget(self.config, self.state, **named)
        self.payload.after_forgetting(report)
        self.check()

    def resize(self, slots: int) -> None:
        self.config, self.state, kept = self.backend.resize(self.config, self.state, slots)
        self.payload.after_resizing(kept)
        self.check()

    def save_and_load(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "memory")
            raremem.save(path, self.config, self.state, self.backend)
            self.config, self.state = raremem.load(path, self.backend)
        self.check()
