"""A backend's memory and the oracle's, side by side through a life: every call is made on both and compared.

Everything that was handed out is compared once more at the end, inputs are overwritten as soon as a call is over, and each call
is noted as lines of Python.
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
"""What `Lookup` promises."""
REPORT_DTYPES = {
    "slots": "int32", "hit": "bool", "written": "bool", "rejected": "int32", "dropped": "int32", "evicted": "int32",
}  # fmt: skip
FORGET_DTYPES = {"forgotten": "bool", "count": "int32"}
PORTABLE_DTYPES = {"keys": "float32", "values": "int32", "ages": "int32", "filled": "bool", "hits": "int32"}


class Asked(NamedTuple):
    """A lookup that was made, on both, and of what."""

    lookup: Lookup
    expected: Lookup
    step: Step
    batch: Batch


class Parted(AssertionError):
    """Backend and oracle are not alike: in which life, at which step, and why."""

    def __init__(self, life: Life, at: int, reason: Exception) -> None:
        super().__init__(f"at step {at + 1} of {len(life.steps)}: {type(reason).__name__}: {reason}")
        self.life = life


class Companion:
    """Both memories, and what has happened.

    Args:
        backend: whose memory.
        life: what it goes through.
        noting: keep the calls on the backend as Python.

    Attributes:
        at: the number of the step that is under way.
        lines: the calls.
    """

    def __init__(self, backend: Backend, life: Life, noting: bool = False) -> None:
        self.backend, self.life, self.config = backend, life, life.config
        self.at, self.noting = -1, noting
        self.lines: list[str] = []
        self._note("state = backend.init(config)")
        self.state, self.expected = backend.init(self.config), oracle.init(self.config)
        self.handed_out: list[tuple[str, Any, NDArray[Any]]] = []
        self.asked: list[Asked] = []
        self.of_others: list[Asked] = []
        self.copies: list[tuple[Any, PortableState]] = []

    def live(self) -> None:
        """Take every step, then look back.

        Raises:
            Parted: whatever a call raises, or a comparison.
        """
        try:
            self._live()
        except Exception as error:
            raise Parted(self.life, self.at, error) from error

    def _live(self) -> None:
        random_states = self._random_states()
        same_state(self.backend.to_numpy(self.state), oracle.to_numpy(self.expected))
        for place, step in enumerate(self.life.steps):
            self.at = place
            self._note(f"# step {self.at + 1}: {step.action}")
            for turn in range(step.times):
                _ACTIONS[step.action](self, step, turn)
        self._look_back()
        assert self._random_states() == random_states, "a global random generator was used"

    def update(self, step: Step, turn: int) -> None:
        """Write a batch, with or without a lookup."""
        batch, asked, step = self._to_write(step, turn)
        found, expected_found = (asked.lookup, asked.expected) if asked else (None, None)
        strict = step.strict and step.lookup in ("none", "fresh")

        def call(backend: Backend, state: Any, lookup: Lookup | None, rows: Any, targets: Any, mask: Any) -> Any:
            return backend.update(self.config, state, rows, targets, mask, lookup, strict=strict)

        handed = "found" if asked else None
        text = f"state, report = backend.update(config, state, queries, targets, mask, {handed}, strict={strict})"
        got, expected = self._both(call, step, batch, found, expected_found, text, batch.targets)
        if isinstance(expected, Exception):
            same_state(self.backend.to_numpy(self.state), oracle.to_numpy(self.expected))
            return
        self.state, report = got
        self._keep("report", report, REPORT_DTYPES)
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
        """To NumPy and back; what was given and what was handed out are the owner's, who writes to them."""
        portable = self.look(step, turn)
        self._note("state = backend.from_numpy(config, portable)")
        self._scribbled(self.backend.to_numpy(self.state))
        given = {name: np.array(part) if name != "step" else part for name, part in portable.items()}
        self.state, self.expected = self.backend.from_numpy(self.config, given), oracle.from_numpy(self.config, portable)
        self._scribbled(given)
        self._is_another()

    def save_and_load(self, step: Step, turn: int) -> None:
        """Through a file."""
        self._note("raremem.save('memory', config, state, backend)", "state = raremem.load('memory', backend)[1]")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "memory"
            raremem.save(path, self.config, self.state, self.backend)
            config, self.state = raremem.load(path, self.backend)
        assert config == self.config
        self.expected = oracle.from_numpy(self.config, oracle.to_numpy(self.expected))
        self._is_another()

    def copy(self, step: Step, turn: int) -> None:
        """Go on with a copy, or with what was copied; the other stays as it is. Lookups may be of both."""
        copied = self.backend.copy(self.state)
        self._note("copied = backend.copy(state)", *["state, copied = copied, state"] * (step.seed % 2))
        if step.seed % 2:
            self.state, copied = copied, self.state
        self.copies.append((copied, oracle.to_numpy(self.expected)))
        self.asked, self.of_others = [], []

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
            self._note(f"state, report = backend.forget(config, state, {name}={as_code(given)})")
        self.state, report = self.backend.forget(self.config, self.state, **named)
        self.expected, expected = oracle.forget(self.config, self.expected, **named)
        self._keep("report of what was forgotten", report, FORGET_DTYPES)
        for name in FORGET_DTYPES:
            same(name, getattr(report, name), getattr(expected, name))

    def look(self, step: Step, turn: int) -> PortableState:
        """The whole memory is as the oracle's."""
        self._note("portable = backend.to_numpy(state)")
        portable = self.backend.to_numpy(self.state)
        same_state(portable, oracle.to_numpy(self.expected))
        self._keep_portable(portable)
        return portable

    def _to_write(self, step: Step, turn: int) -> tuple[Batch, Asked | None, Step]:
        """What an update writes, with which lookup, and as which kinds of arrays."""
        batch, kind = self._batch(step, turn), step.lookup
        other = self._batch(step, turn + 1000)
        if kind == "none":
            return batch, None, step
        if kind == "late" and self.asked:
            asked: Asked | None = self.asked[step.seed % len(self.asked)]
            assert asked is not None
            self._note(f"found = found_{step.seed % len(self.asked)}")
            return asked.batch._replace(mask=_of_length(batch.mask, asked.step.batch)), asked, _as_of(asked.step, step)
        if kind == "of another memory":
            asked = self.of_others[-1] if self.of_others else self._ask_another(step, batch)
            self._note("found = found_of_another")
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
        """Look up on both, and compare."""

        def call(backend: Backend, state: Any, lookup: None, rows: Any, targets: Any, mask: Any) -> Any:
            return backend.query(self.config, state, rows, targets, mask, strict=strict)

        text = f"found = found_{len(self.asked)} = backend.query(config, state, queries, targets, mask, strict={strict})"
        got, expected = self._both(call, step, batch, None, None, text, targets)
        if isinstance(expected, Exception):
            return None
        self._keep("lookup", got, DTYPES)
        if self.life.pool:
            same_lookup(got, expected, self.config)
        else:
            check_answer_closely(self.config, oracle.to_numpy(self.expected), batch.rows, targets, batch.mask, got)
        self.asked.append(Asked(got, expected, step, batch))
        return self.asked[-1]

    def _ask_another(self, step: Step, batch: Batch) -> Asked:
        """A lookup of a memory that has nothing to do with this one."""
        rows = lives.of_values(batch.rows, "float32")
        self._note(f"found_of_another = backend.query(config, backend.init(config), {as_code(rows)})")
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
        """The call on both, or the error that both raise. The backend's arrays stay as they are, and are then overwritten."""
        given = self._given(step, batch.rows, targets, batch.mask)
        self._note(text)
        plain = [None if array is None else np.array(as_numpy(array)) for array in given]
        expected = _outcome(call, oracle, self.expected, expected_lookup, plain)
        got = _outcome(call, self.backend, self.state, lookup, given)
        if isinstance(expected, Exception) or isinstance(got, Exception):
            assert type(got) is type(expected), f"the oracle gives {expected!r}, the backend {got!r}"
            assert "expected" in str(got), got
        for name, array, content in zip(("queries", "targets", "mask"), given, plain, strict=True):
            if array is not None:
                same(f"{name}, which were given,", array, content)
        self._scribbled({**self._bases, **dict(enumerate(given))})
        return got, expected

    def _given(self, step: Step, rows: NDArray[np.float64], targets: Any, mask: Any) -> list[Any]:
        """What the backend is given: of the dtypes, layout and framework of the step."""
        own = step.own or step.rows == "bfloat16"
        rows_in = "float32" if step.rows == "bfloat16" and "bfloat16" not in self.backend.capabilities else step.rows
        self._bases: dict[str, NDArray[Any]] = {}
        given: list[Any] = []
        for name, content, dtype in (("queries", rows, rows_in), ("targets", targets, step.targets), ("mask", mask, "bool")):
            if content is None:
                self._note(f"{name} = None")
                given.append(None)
                continue
            layout = "plain" if own or (step.layout == "fortran" and name != "queries") else step.layout
            array = lives.lay_out(lives.of_values(content, dtype), layout)
            self._bases[name] = array
            cast = dtype if own and dtype == "bfloat16" else None
            given.append(self.backend.own(array, self.state, cast) if own else array)
            if self.noting:
                code = f"{as_code(array)}" if layout == "plain" else f"lay_out({as_code(array)}, {layout!r})"
                self._note(f"{name} = backend.own({code}, state, {cast!r})" if own else f"{name} = {code}")
        return given

    def _keep(self, name: str, answer: Any, dtypes: dict[str, str]) -> None:
        """Look at what is handed out, now and again at the end."""
        kind = type(self.backend.own(np.zeros(1, np.int32), self.state))
        for field, dtype in dtypes.items():
            array = getattr(answer, field)
            if array is None:
                continue
            content = as_numpy(array)
            assert content.dtype == dtype, f"{name}, {field}: {content.dtype}, expected {dtype}"
            assert content.ndim == 0 or isinstance(array, kind), f"{name}, {field}: a {type(array)}, expected a {kind}"
            self.handed_out.append((f"{name}, {field}, of step {self.at + 1},", array, np.array(content)))

    def _keep_portable(self, portable: PortableState) -> None:
        for name, dtype in PORTABLE_DTYPES.items():
            assert portable[name].dtype == dtype, f"to_numpy, {name}: {portable[name].dtype}, expected {dtype}"
            self.handed_out.append((f"to_numpy, {name}, of step {self.at + 1},", portable[name], np.array(portable[name])))
        assert type(portable["step"]) is int

    def _is_another(self) -> None:
        """From now on the memory is another one, and lookups made before are not of it."""
        if self.asked:
            self._note(f"found_of_another = found_{len(self.asked) - 1}")
            self.of_others = self.asked[-1:]
        self.asked = []

    def _note(self, *lines: str) -> None:
        if self.noting:
            self.lines += lines

    def _scribbled(self, arrays: dict[Any, Any]) -> None:
        """Whoever owns arrays may write to them, if they can be written to."""
        for array in arrays.values():
            with contextlib.suppress(TypeError, ValueError, AttributeError):
                array[...] = 77

    def _look_back(self) -> None:
        """The memory, and whatever was handed out or copied on the way."""
        same_state(self.backend.to_numpy(self.state), oracle.to_numpy(self.expected))
        for name, array, content in self.handed_out:
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
    """What a call gives, or the error that it raises on purpose."""
    try:
        return call(backend, state, lookup, *given)
    except raremem.RarememError as error:
        return error


def _as_of(asked: Step, step: Step) -> Step:
    """The kinds of arrays of the step that asked; all else of this one."""
    return replace(step, batch=asked.batch, rows=asked.rows, targets=asked.targets)


def _of_length(mask: NDArray[np.bool_] | None, length: int) -> NDArray[np.bool_] | None:
    return None if mask is None else np.resize(mask, length)


def as_code(content: Any) -> str:
    """An array as the Python that makes it."""
    if not isinstance(content, np.ndarray):
        return repr(content)
    text = f"np.array({content.tolist()}, np.{content.dtype})"
    return re.sub(r"\.0(?=[,\]])", "", text).replace("nan", "np.nan").replace("inf", "np.inf")
