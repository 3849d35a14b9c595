"""A life on a backend and on the oracle: every call is made on both, and the answers are compared.

What calls returned is compared again at the end. Inputs are overwritten after each call. On request each call is recorded as
lines of Python.
"""

from __future__ import annotations

import contextlib
import random
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import raremem
from raremem.backend import Backend
from raremem.reference import lives
from raremem.reference.comparison import as_numpy, check_answer_closely, check_write_closely, same, same_lookup, same_state
from raremem.reference.lives import Batch, Life, Step
from raremem.reference.oracle import backend as oracle
from raremem.state import Lookup, PortableState, UpdateReport

DTYPES = {
    "values": "int32", "slots": "int32", "similarities": "float32", "weights": "float32", "found": "bool", "loss": "float32",
    "queries": "float32", "targets": "int32", "rejected": "bool", "accepted": "bool", "step": "int32",
}  # fmt: skip
"""The dtypes that `Lookup` documents."""
REPORT_DTYPES = {
    "slots": "int32", "hit": "bool", "written": "bool", "rejected": "int32", "dropped": "int32", "evicted": "int32",
}  # fmt: skip
FORGET_DTYPES = {"forgotten": "bool", "count": "int32"}
PORTABLE_DTYPES = {"keys": "float32", "values": "int32", "ages": "int32", "filled": "bool", "hits": "int32"}


class Asked(NamedTuple):
    """A lookup by the backend and by the oracle, with its step and batch."""

    lookup: Lookup
    expected: Lookup
    step: Step
    batch: Batch


class Difference(AssertionError):
    """Backend and oracle differ: in this life, at this step, for this reason."""

    def __init__(self, life: Life, at: int, reason: Exception) -> None:
        super().__init__(f"at step {at + 1} of {len(life.steps)}: {type(reason).__name__}: {reason}")
        self.life = life


class Companion:
    """The memories of a backend and of the oracle in one life.

    Args:
        backend: the backend under test.
        life: the calls to make.
        recording: whether to record the calls on the backend as Python.

    Attributes:
        at: the number of the present step, from 0.
        lines: the calls as lines of Python.
    """

    def __init__(self, backend: Backend, life: Life, recording: bool = False) -> None:
        self.backend, self.life, self.config = backend, life, life.config
        self.at, self.recording = -1, recording
        self.lines: list[str] = []
        self._record("state = backend.init(config)")
        self.state, self.expected = backend.init(self.config), oracle.init(self.config)
        self.returned: list[tuple[str, Any, NDArray[Any]]] = []
        self.asked: list[Asked] = []
        self.of_another: list[Asked] = []
        self.copies: list[tuple[Any, PortableState]] = []

    def live(self) -> None:
        """Take every step, then check everything that was returned.

        Raises:
            Difference: a call or a comparison raised an error.
        """
        try:
            self._live()
        except Exception as error:
            raise Difference(self.life, self.at, error) from error

    def _live(self) -> None:
        random_states = self._random_states()
        same_state(self.backend.to_numpy(self.state), oracle.to_numpy(self.expected))
        for place, step in enumerate(self.life.steps):
            self.at = place
            self._record(f"# step {self.at + 1}: {step.action}")
            for turn in range(step.times):
                _ACTIONS[step.action](self, step, turn)
        self._check_returned()
        assert self._random_states() == random_states, "a global random generator was used"

    def update(self, step: Step, turn: int) -> None:
        """Write a batch, with or without a lookup."""
        batch, asked, step = self._to_write(step, turn)
        found, expected_found = (asked.lookup, asked.expected) if asked else (None, None)
        strict = step.strict and step.lookup in ("none", "current")

        def call(backend: Backend, state: Any, lookup: Lookup | None, rows: Any, targets: Any, mask: Any) -> Any:
            return backend.update(self.config, state, rows, targets, mask, lookup, strict=strict)

        handed = "found" if asked else None
        text = f"state, report = backend.update(config, state, queries, targets, mask, {handed}, strict={strict})"
        got, expected = self._both(call, step, batch, found, expected_found, text, batch.targets)
        if isinstance(expected, Exception):
            same_state(self.backend.to_numpy(self.state), oracle.to_numpy(self.expected))
            return
        self.state, report = got
        self._check_fields("report", report, REPORT_DTYPES)
        at_this, (self.expected, right) = self.expected, expected
        if self.life.pool:
            for name in UpdateReport._fields:
                same(name, getattr(report, name), getattr(right, name))
        else:
            before, after = oracle.to_numpy(at_this), self.backend.to_numpy(self.state)
            check_write_closely(self.config, before, batch.rows, oracle.to_numpy(self.expected), right, after, report)
            self.expected = replace(oracle.from_numpy(self.config, after), memory=at_this.memory)

    def query(self, step: Step, turn: int) -> None:
        """Look a batch up."""
        batch = self._batch(step, turn)
        self._ask(step, batch, batch.targets if step.seed % 3 else None, step.strict)

    def exchange(self, step: Step, turn: int) -> None:
        """To NumPy and back. The arrays of both directions are overwritten, as their owner may do."""
        portable = self.look(step, turn)
        self._record("state = backend.from_numpy(config, portable)")
        self._overwrite(self.backend.to_numpy(self.state))
        given = {name: np.array(part) if name != "step" else part for name, part in portable.items()}
        self.state, self.expected = self.backend.from_numpy(self.config, given), oracle.from_numpy(self.config, portable)
        self._overwrite(given)
        self._change_memory()

    def save_and_load(self, step: Step, turn: int) -> None:
        """To a file and back."""
        self._record("raremem.save('memory', config, state, backend)", "state = raremem.load('memory', backend)[1]")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "memory"
            raremem.save(path, self.config, self.state, self.backend)
            config, self.state = raremem.load(path, self.backend)
        assert config == self.config
        self.expected = oracle.from_numpy(self.config, oracle.to_numpy(self.expected))
        self._change_memory()

    def copy(self, step: Step, turn: int) -> None:
        """Go on with a copy, or with the original; the other must not change. Lookups before it may be of either."""
        copied = self.backend.copy(self.state)
        self._record("copied = backend.copy(state)", *["state, copied = copied, state"] * (step.seed % 2))
        if step.seed % 2:
            self.state, copied = copied, self.state
        self.copies.append((copied, oracle.to_numpy(self.expected)))
        self.asked, self.of_another = [], []

    def forget(self, step: Step, turn: int) -> None:
        """Forget some slots, some of the values that are there, or what is old; all of it, now and then."""
        generator = np.random.default_rng([step.seed, turn])
        values = oracle.to_numpy(self.expected)["values"]
        ways: list[dict[str, Any]] = [
            {"slots": generator.integers(-1, self.config.slots, 2)},
            {"values": generator.choice(values[values >= 0], 2) if (values >= 0).any() else []},
            {"older_than": int(generator.integers(0, 6))},
            {"slots": np.ones(self.config.slots, np.bool_)},
        ]
        named = ways[generator.choice(4, p=(0.4, 0.3, 0.2, 0.1))]
        for name, given in named.items():
            self._record(f"state, report = backend.forget(config, state, {name}={as_code(given)})")
        self.state, report = self.backend.forget(self.config, self.state, **named)
        self.expected, expected = oracle.forget(self.config, self.expected, **named)
        self._check_fields("report of what was forgotten", report, FORGET_DTYPES)
        for name in FORGET_DTYPES:
            same(name, getattr(report, name), getattr(expected, name))

    def look(self, step: Step, turn: int) -> PortableState:
        """Compare the whole memory with the oracle's."""
        self._record("portable = backend.to_numpy(state)")
        portable = self.backend.to_numpy(self.state)
        same_state(portable, oracle.to_numpy(self.expected))
        self._check_portable(portable)
        return portable

    def _to_write(self, step: Step, turn: int) -> tuple[Batch, Asked | None, Step]:
        """The batch and lookup of an update, and the step that says the kinds of its arrays."""
        batch, kind = self._batch(step, turn), step.lookup
        other = self._batch(step, turn + 1000)
        if kind == "none":
            return batch, None, step
        if kind == "late" and self.asked:
            asked: Asked | None = self.asked[step.seed % len(self.asked)]
            assert asked is not None
            self._record(f"found = found_{step.seed % len(self.asked)}")
            return asked.batch._replace(mask=_of_length(batch.mask, asked.step.batch)), asked, _as_of(asked.step, step)
        if kind == "of another memory":
            asked = self.of_another[-1] if self.of_another else self._ask_another(step, batch)
            self._record("found = found_of_another")
            return asked.batch._replace(mask=None), asked, _as_of(asked.step, step)
        targets: NDArray[np.int64] | None = np.roll(batch.targets, 1) if kind == "with other targets" else batch.targets
        asked = self._ask(
            step,
            batch._replace(mask=other.mask if kind == "with another mask" else batch.mask),
            None if kind == "without targets" else targets,
            False,
        )
        return batch, asked, step

    def _batch(self, step: Step, turn: int) -> Batch:
        if self.life.pool:
            return lives.exact_batch(self.life, step, turn)
        portable = self.backend.to_numpy(self.state)
        return lives.general_batch(self.life, step, turn, portable["keys"], portable["values"])

    def _ask(self, step: Step, batch: Batch, targets: NDArray[np.int64] | None, strict: bool) -> Asked | None:
        """Look a batch up on both, and compare."""

        def call(backend: Backend, state: Any, lookup: None, rows: Any, targets: Any, mask: Any) -> Any:
            return backend.query(self.config, state, rows, targets, mask, strict=strict)

        text = f"found = found_{len(self.asked)} = backend.query(config, state, queries, targets, mask, strict={strict})"
        got, expected = self._both(call, step, batch, None, None, text, targets)
        if isinstance(expected, Exception):
            return None
        self._check_fields("lookup", got, DTYPES)
        if self.life.pool:
            same_lookup(got, expected, self.config)
        else:
            check_answer_closely(self.config, oracle.to_numpy(self.expected), batch.rows, targets, batch.mask, got)
        self.asked.append(Asked(got, expected, step, batch))
        return self.asked[-1]

    def _ask_another(self, step: Step, batch: Batch) -> Asked:
        """A lookup of another memory, which is empty."""
        rows = lives.cast(batch.rows, "float32")
        self._record(f"found_of_another = backend.query(config, backend.init(config), {as_code(rows)})")
        found, expected = (side.query(self.config, side.init(self.config), rows) for side in (self.backend, oracle))
        return Asked(found, expected, step, batch)

    def _both(
        self,
        call: Callable[..., Any],
        step: Step,
        batch: Batch,
        lookup: Lookup | None,
        expected_lookup: Lookup | None,
        text: str,
        targets: NDArray[np.int64] | None,
    ) -> tuple[Any, Any]:
        """Make the call on both; returns both answers, or the error that both raise. The backend's input must not change."""
        given = self._given(step, batch.rows, targets, batch.mask)
        self._record(text)
        plain = [None if array is None else np.array(as_numpy(array)) for array in given]
        expected = _outcome(call, oracle, self.expected, expected_lookup, plain)
        got = _outcome(call, self.backend, self.state, lookup, given)
        if isinstance(expected, Exception) or isinstance(got, Exception):
            assert type(got) is type(expected), f"the oracle gives {expected!r}, the backend {got!r}"
            assert "expected" in str(got), got
        for name, array, content in zip(("queries", "targets", "mask"), given, plain, strict=True):
            if array is not None:
                same(f"{name}, which were given,", array, content)
        self._overwrite({**self._bases, **dict(enumerate(given))})
        return got, expected

    def _given(self, step: Step, rows: NDArray[np.float64], targets: Any, mask: Any) -> list[Any]:
        """The backend's input, in the dtypes, layout and framework of the step."""
        own = step.own or step.rows == "bfloat16"
        rows_in = "float32" if step.rows == "bfloat16" and "bfloat16" not in self.backend.capabilities else step.rows
        self._bases: dict[str, NDArray[Any]] = {}
        given: list[Any] = []
        for name, content, dtype in (("queries", rows, rows_in), ("targets", targets, step.targets), ("mask", mask, "bool")):
            if content is None:
                self._record(f"{name} = None")
                given.append(None)
                continue
            layout = "plain" if own or (step.layout == "fortran" and name != "queries") else step.layout
            array = lives.lay_out(lives.cast(content, dtype), layout)
            self._bases[name] = array
            cast = dtype if own and dtype == "bfloat16" else None
            given.append(self.backend.own(array, self.state, cast) if own else array)
            if self.recording:
                code = f"{as_code(array)}" if layout == "plain" else f"lay_out({as_code(array)}, {layout!r})"
                self._record(f"{name} = backend.own({code}, state, {cast!r})" if own else f"{name} = {code}")
        return given

    def _check_fields(self, name: str, answer: Any, dtypes: dict[str, str]) -> None:
        """Check the dtypes and kinds of an answer's arrays, and keep them to be compared at the end."""
        kind = type(self.backend.own(np.zeros(1, np.int32), self.state))
        for field, dtype in dtypes.items():
            array = getattr(answer, field)
            if array is None:
                continue
            content = as_numpy(array)
            assert content.dtype == dtype, f"{name}, {field}: {content.dtype}, expected {dtype}"
            assert content.ndim == 0 or isinstance(array, kind), f"{name}, {field}: a {type(array)}, expected a {kind}"
            self.returned.append((f"{name}, {field}, of step {self.at + 1},", array, np.array(content)))

    def _check_portable(self, portable: PortableState) -> None:
        for name, dtype in PORTABLE_DTYPES.items():
            assert portable[name].dtype == dtype, f"to_numpy, {name}: {portable[name].dtype}, expected {dtype}"
            self.returned.append((f"to_numpy, {name}, of step {self.at + 1},", portable[name], np.array(portable[name])))
        assert type(portable["step"]) is int

    def _change_memory(self) -> None:
        """The memory is another one from now on: lookups made before are not of it."""
        if self.asked:
            self._record(f"found_of_another = found_{len(self.asked) - 1}")
            self.of_another = self.asked[-1:]
        self.asked = []

    def _record(self, *lines: str) -> None:
        if self.recording:
            self.lines += lines

    def _overwrite(self, arrays: dict[Any, Any]) -> None:
        """Write to arrays, as their owner may do; to those that can be written to."""
        for array in arrays.values():
            with contextlib.suppress(TypeError, ValueError, AttributeError):
                array[...] = 77

    def _check_returned(self) -> None:
        """Compare the memory, everything that was returned, and all copies."""
        same_state(self.backend.to_numpy(self.state), oracle.to_numpy(self.expected))
        for name, array, content in self.returned:
            same(f"{name} looked at again", array, content)
        for copied, portable in self.copies:
            same_state(self.backend.to_numpy(copied), portable)

    def _random_states(self) -> list[Any]:
        return [random.getstate(), str(np.random.get_state()), self.backend.random_state()]


_ACTIONS: dict[str, Callable[[Companion, Step, int], Any]] = {
    "update": Companion.update,
    "query": Companion.query,
    "exchange": Companion.exchange,
    "save and load": Companion.save_and_load,
    "copy": Companion.copy,
    "look": Companion.look,
    "forget": Companion.forget,
}


def _outcome(call: Callable[..., Any], backend: Backend, state: Any, lookup: Lookup | None, given: list[Any]) -> Any:
    """What a call returns, or the RarememError that it raises."""
    try:
        return call(backend, state, lookup, *given)
    except raremem.RarememError as error:
        return error


def _as_of(asked: Step, step: Step) -> Step:
    """This step, with the kinds of arrays of the step that asked."""
    return replace(step, batch=asked.batch, rows=asked.rows, targets=asked.targets)


def _of_length(mask: NDArray[np.bool_] | None, length: int) -> NDArray[np.bool_] | None:
    return None if mask is None else np.resize(mask, length)


def as_code(content: Any) -> str:
    """Python code for an array."""
    if not isinstance(content, np.ndarray):
        return repr(content)
    text = f"np.array({content.tolist()}, np.{content.dtype})"
    return re.sub(r"\.0(?=[,\]])", "", text).replace("nan", "np.nan").replace("inf", "np.inf")
