"""Laws of configs, states from outside and files: what is refused, and what is just accepted."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

import raremem
from raremem.backend import Backend
from raremem.config import MemoryConfig
from raremem.reference.comparison import same_state
from raremem.reference.laws.registry import full, law
from raremem.reference.strategies import Case
from raremem.state import PortableState

WHOLE = (("slots", 1, 2**31 - 1), ("key_dim", 1, 2**31 - 1), ("neighbors", 1, 2**31 - 1), ("age_noise", 0, 2**20))
LARGEST = float(np.finfo(np.float32).max)
DEFAULTS = (8192, 128, 256, 0.1, 40.0, 8, 0, "margin", "oldest", "merge")
"""Of a config: the paper's, where it has any."""


def refused(error: type[Exception], says: str, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    """Check that the call raises this error, in one line that contains `says`."""
    try:
        call(*arguments, **named)
    except error as raised:
        text = str(raised)
        assert says in text, raised
        assert "\n" not in text, raised
    else:
        raise AssertionError(f"{call} took {arguments} {named}, which should raise {error.__name__}")


@law("config", costly=True)
def configs_are_checked(backend: Backend, case: Case) -> None:
    """A field in range is taken as a Python number; any other is refused. A new memory is as its config says."""
    made: Callable[..., MemoryConfig] = MemoryConfig
    assert dataclasses.astuple(made()) == DEFAULTS
    for name, low, high in (*WHOLE, ("seed", 0, 2**32 - 1)):
        for number in (low, high, np.int64(high), np.asarray(low)[()]):
            taken = getattr(made(**{name: number}), name)
            assert (taken, type(taken)) == (number, int), f"{name}={number!r} became {taken!r}"
        for wrong in (low - 1, high + 1, True, 1.0, "1", None, np.timedelta64(1, "s"), -(10**5000)):
            refused(raremem.ConfigError, f"{name}=", MemoryConfig, **{name: wrong})
    for name in ("margin", "softmax_temperature"):
        for number in (0.0, LARGEST, 2, np.float32(0.5), -0.0):
            taken = getattr(made(**{name: number}), name)
            assert (taken, type(taken), np.signbit(taken)) == (number, float, False), f"{name}={number!r} became {taken!r}"
        for unfit in (-(2.0**-149), LARGEST * (1 + 2.0**-30), np.nan, np.inf, False, "1", 1j, 10**400):
            refused(raremem.ConfigError, f"{name}=", MemoryConfig, **{name: unfit})
    named = {"loss": ("margin", "nll"), "evict": ("oldest", "least_hit"), "write": ("merge", "keep")}
    for name, choices in named.items():
        for choice in choices:
            taken = getattr(made(**{name: np.str_(choice)}), name)
            assert (taken, type(taken)) == (choice, str), f"{name}={choice!r} became {taken!r}"
        for other in ("other" * 100, None, list(choices)):
            refused(raremem.ConfigError, f"{name}=", MemoryConfig, **{name: other})
    refused(raremem.ConfigError, "cannot be shown", MemoryConfig, slots=10**5000)
    assert (MemoryConfig(slots=5, neighbors=7).k, MemoryConfig(slots=7, neighbors=5).k) == (5, 5)
    config, slots = case.config, case.config.slots
    nothing = {"keys": np.zeros((slots, config.key_dim), np.float32), "values": np.full(slots, -1, np.int32)}
    zeros = {name: np.zeros(slots, np.int32) for name in ("ages", "hits")}
    same_state(backend.to_numpy(backend.init(config)), {**nothing, **zeros, "filled": np.zeros(slots, np.bool_), "step": 0})


@law("state", full)
def states_are_checked(backend: Backend, case: Case) -> None:
    """A state that breaks an invariant is refused, and the slot named. Ends of ranges and other dtypes are accepted."""
    states = _OutsideStates(backend, case)
    states.check_ranges()
    states.check_norms()
    states.check_dtypes()
    states.check_parts()


class _OutsideStates:
    """States from outside: that of a case, with changes."""

    def __init__(self, backend: Backend, case: Case) -> None:
        self.backend, self.config, self.state, self.last = backend, case.config, case.state, case.config.slots - 1

    def changed(self, name: str, value: Any) -> PortableState:
        """The state with this value in the last slot."""
        array = np.array(self.state[name], np.asarray(value).dtype if name != "keys" else None)
        array[self.last] = value
        return {**self.state, name: array}

    def is_read(self, given: PortableState, expected: PortableState) -> None:
        """Check that a state is read as the expected one."""
        same_state(self.backend.to_numpy(self.backend.from_numpy(self.config, given)), expected)

    def is_refused(self, says: str, given: PortableState) -> None:
        """Check that a state is refused with an error that contains `says`."""
        refused(raremem.StateError, says, self.backend.from_numpy, self.config, given)

    def check_ranges(self) -> None:
        """Check the ends of ranges: values, ages, hits and the step."""
        for name, most in (("values", 2**31 - 1), ("ages", 2**31 - 1), ("hits", 127)):
            for value in (0, most):
                self.is_read(self.changed(name, value), self.changed(name, value))
            for value in (-1, most + 1):
                says = f"{name} have {value} in slot {self.last}; expected"
                self.is_refused(says, self.changed(name, np.int64(value)))
        for step in (0, 2**31, 2**32 - 1):
            self.is_read({**self.state, "step": np.array(step)}, {**self.state, "step": step})
        for no_step in (-1, 2**32, 1.0, True, None, [1]):
            self.is_refused("expected", {**self.state, "step": no_step})

    def check_norms(self) -> None:
        """Check that the norm of a key may be off by 0.001."""
        for scale, fits in ((1.0009, True), (0.9991, True), (1.0011, False), (0.9989, False), (np.nan, False)):
            given = self.changed("keys", self.state["keys"][self.last] * np.float32(scale))
            if fits:
                self.is_read(given, given)
            else:
                self.is_refused(f"the key of slot {self.last} has norm", given)

    def check_dtypes(self) -> None:
        """Check that other widths and lists are read, hits may be missing, and the content of empty slots is ignored."""
        state, changed = self.state, self.changed
        narrow = {"values": np.uint8, "ages": np.uint32, "hits": np.int8, "keys": np.float64}
        self.is_read({**state, **{name: state[name].astype(dtype) for name, dtype in narrow.items()}}, state)
        self.is_read({name: part if name == "step" else part.tolist() for name, part in state.items()}, state)
        without = {name: array for name, array in state.items() if name != "hits"}
        self.is_read(without, {**state, "hits": 0 * state["hits"]})
        filled = changed("filled", False)["filled"]
        emptied = {name: changed(name, none)[name] for name, none in (("keys", 0), ("values", -1), ("ages", 0), ("hits", 0))}
        odd = {name: changed(name, 77)[name] for name in ("ages", "hits")} | {"values": changed("values", -3)["values"]}
        odd["keys"] = changed("keys", 2.0)["keys"]
        self.is_read({**state, **odd, "filled": filled}, {**state, **emptied, "filled": filled})

    def check_parts(self) -> None:
        """Check that no array may be missing, of another shape, or complex."""
        for name in ("keys", "values", "ages", "filled", "hits"):
            array = self.state[name]
            for wrong in (np.concatenate([array, array[:1]]), array.astype(np.complex64)):
                self.is_refused(f"{name} has shape", {**self.state, name: wrong})
        for name in ("keys", "values", "ages", "filled", "step"):
            self.is_refused("expected", {other: array for other, array in self.state.items() if other != name})


@law("state")
def files_are_whole_or_refused(backend: Backend, case: Case) -> None:
    """Equal memories make equal files. A file that was changed or cut short is refused. Files of older schemas are read, and a
    memory is loaded into more or fewer slots."""
    config, state = case.config, case.state
    with tempfile.TemporaryDirectory() as folder:
        path, other = Path(folder) / "memory", Path(folder) / "other"
        for each in (path, other):
            raremem.save(each, config, backend.from_numpy(config, state), backend)
        content = path.read_bytes()
        assert other.read_bytes() == content, "equal memories, and other bytes"
        generator = np.random.default_rng(state["step"])
        places = [*generator.integers(0, len(content), 40), 0, len(content) - 1]
        spoilt = [content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :] for place in places]
        for bytes_ in (*spoilt, b"", content[:20], content[:-1], content + b"\0"):
            other.write_bytes(bytes_)
            refused(raremem.CheckpointError, "Load an older copy.", raremem.load, other, backend)
        _check_schemas(backend, case, path, other)
        for slots in (config.slots + 3, max(1, config.slots // 2)):
            resized, loaded = raremem.load(path, backend, slots=slots)
            assert resized == dataclasses.replace(config, slots=slots)
            same_state(backend.to_numpy(loaded), in_slots(config, state, slots))
        refused(raremem.CheckpointError, "a device or a pipe", raremem.load, os.devnull, backend)
        missing = Path(folder) / "missing"
        refused(FileNotFoundError, "missing", raremem.load, missing, backend)
        refused(raremem.ConfigError, "expected a MemoryConfig", raremem.save, missing, None, backend.init(config), backend)
        assert not missing.exists()


def _check_schemas(backend: Backend, case: Case, path: Path, other: Path) -> None:
    """Write the memory in the file `path` to `other` with headers of all schemas: valid ones are read, and others refused."""
    header, arrays, state = json.loads(_metadata(path)), safetensors.numpy.load_file(path), case.state
    for schema, says in ((5, "expected 1 to 4"), (0, "expected 1 to 4"), ("4", "no whole"), (True, "no whole")):
        _write(other, arrays, {**header, "schema": schema})
        refused(raremem.CheckpointError, says, raremem.load, other, backend)
    fields = {name: field for name, field in header["config"].items() if name != "write"}
    older = {"config": fields, "schema": 2}
    _write(other, arrays, older)
    same_state(backend.to_numpy(raremem.load(other, backend)[1]), state)
    _write(other, {name: array for name, array in arrays.items() if name != "hits"}, {**older, "schema": 1})
    same_state(backend.to_numpy(raremem.load(other, backend)[1]), {**state, "hits": 0 * state["hits"]})
    for wrong in ({**older, "sha256": ""}, {**older, "config": 1}, {**older, "schema": 3}, {**older, "schema": 1}, [older]):
        _write(other, arrays, wrong)
        refused(raremem.CheckpointError, "is not a whole raremem checkpoint", raremem.load, other, backend)
    arrays["filled"] = np.full(case.config.slots, 2, np.uint8).view(np.bool_)
    _write(other, arrays, older)
    refused(raremem.CheckpointError, "bytes other than 0 and 1", raremem.load, other, backend)


def in_slots(config: MemoryConfig, state: PortableState, slots: int) -> PortableState:
    """A memory in this number of slots, by the slot: what would be evicted first is left out."""

    def goes_later(slot: int) -> tuple[bool, int, int, int]:
        return bool(state["filled"][slot]), state["hits"][slot] * (config.evict == "least_hit"), -state["ages"][slot], slot

    kept = sorted(sorted(range(config.slots), key=goes_later)[max(0, config.slots - slots) :])
    empty = {"keys": 0, "values": -1, "ages": 0, "filled": False, "hits": 0}
    more: dict[str, Any] = {}
    for name, none in empty.items():
        array = np.full((slots, *state[name].shape[1:]), none, state[name].dtype)
        array[: len(kept)] = state[name][kept]
        more[name] = array
    return {**more, "step": state["step"]}


def _metadata(path: Path) -> str:
    with safetensors.safe_open(path, framework="numpy") as file:
        return str(file.metadata()["raremem"])


def _write(path: Path, arrays: dict[str, Any], header: Any) -> None:
    path.write_bytes(safetensors.numpy.save(arrays, {"raremem": json.dumps(header)}))
