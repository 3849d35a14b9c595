"""Laws of what is refused, and of what stands at the ends of what is not: configs, states from outside, and files."""

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
    """The call raises this error, in one line that says what was expected, and this."""
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
    """What is in range is taken, as Python's own numbers, and what is not is refused; a new memory is of its config."""
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
    """What breaks an invariant is refused, with the slot where it does; the ends of all ranges, and other widths, are not."""
    config, last, state = case.config, case.config.slots - 1, case.state

    def changed(name: str, value: Any) -> PortableState:
        array = np.array(state[name], np.asarray(value).dtype if name != "keys" else None)
        array[last] = value
        return {**state, name: array}

    def taken(given: PortableState, expected: PortableState) -> None:
        same_state(backend.to_numpy(backend.from_numpy(config, given)), expected)

    for name, most in (("values", 2**31 - 1), ("ages", 2**31 - 1), ("hits", 127)):
        for value in (0, most):
            taken(changed(name, value), changed(name, value))
        for value in (-1, most + 1):
            refused(raremem.StateError, f"{name} have {value} in slot {last}; expected", backend.from_numpy, config,
                    changed(name, np.int64(value)))  # fmt: skip
    for step in (0, 2**31, 2**32 - 1):
        taken({**state, "step": np.array(step)}, {**state, "step": step})
    for no_step in (-1, 2**32, 1.0, True, None, [1]):
        refused(raremem.StateError, "expected", backend.from_numpy, config, {**state, "step": no_step})
    for scale, fits in ((1.0009, True), (0.9991, True), (1.0011, False), (0.9989, False), (np.nan, False)):
        given = changed("keys", state["keys"][last] * np.float32(scale))
        if fits:
            taken(given, given)
        else:
            refused(raremem.StateError, f"the key of slot {last} has norm", backend.from_numpy, config, given)
    narrow = {"values": np.uint8, "ages": np.uint32, "hits": np.int8, "keys": np.float64}
    wide = {**state, **{name: state[name].astype(dtype) for name, dtype in narrow.items()}}
    taken(wide, state)
    taken({name: part if name == "step" else part.tolist() for name, part in state.items()}, state)
    taken({name: array for name, array in state.items() if name != "hits"}, {**state, "hits": 0 * state["hits"]})
    filled = changed("filled", False)["filled"]
    emptied = {name: changed(name, none)[name] for name, none in (("keys", 0), ("values", -1), ("ages", 0), ("hits", 0))}
    odd = {name: changed(name, 77)[name] for name in ("ages", "hits")} | {"values": changed("values", -3)["values"]}
    taken({**state, **odd, "keys": changed("keys", 2.0)["keys"], "filled": filled}, {**state, **emptied, "filled": filled})
    for name in ("keys", "values", "ages", "filled", "hits"):
        wrong: list[Any] = [np.concatenate([state[name], state[name][:1]]), state[name].astype(np.complex64)]
        for array in wrong:
            refused(raremem.StateError, f"{name} has shape", backend.from_numpy, config, {**state, name: array})
    for name in ("keys", "values", "ages", "filled", "step"):
        without = {other: array for other, array in state.items() if other != name}
        refused(raremem.StateError, "expected", backend.from_numpy, config, without)


@law("state")
def files_are_whole_or_refused(backend: Backend, case: Case) -> None:
    """A file of equal content has equal bytes; one that was changed or cut short is refused; older schemas are read, and a
    memory is loaded into more slots or fewer."""
    config, state = case.config, case.state
    with tempfile.TemporaryDirectory() as folder:
        path, other = Path(folder) / "memory", Path(folder) / "other"
        for each in (path, other):
            raremem.save(each, config, backend.from_numpy(config, state), backend)
        content = path.read_bytes()
        assert other.read_bytes() == content, "equal memories, and other bytes"
        header = json.loads(_metadata(path))
        generator = np.random.default_rng(state["step"])
        places = [*generator.integers(0, len(content), 40), 0, len(content) - 1]
        spoilt = [content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :] for place in places]
        for bytes_ in (*spoilt, b"", content[:20], content[:-1], content + b"\0"):
            other.write_bytes(bytes_)
            refused(raremem.CheckpointError, "Load an older copy.", raremem.load, other, backend)
        arrays = safetensors.numpy.load_file(path)
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
        arrays["filled"] = np.full(config.slots, 2, np.uint8).view(np.bool_)
        _write(other, arrays, older)
        refused(raremem.CheckpointError, "bytes other than 0 and 1", raremem.load, other, backend)
        for slots in (config.slots + 3, max(1, config.slots // 2)):
            resized, loaded = raremem.load(path, backend, slots=slots)
            assert resized == dataclasses.replace(config, slots=slots)
            same_state(backend.to_numpy(loaded), in_slots(config, state, slots))
        refused(raremem.CheckpointError, "a device or a pipe", raremem.load, os.devnull, backend)
        missing = Path(folder) / "missing"
        refused(FileNotFoundError, "missing", raremem.load, missing, backend)
        refused(raremem.ConfigError, "expected a MemoryConfig", raremem.save, missing, None, backend.init(config), backend)
        assert not missing.exists()


def in_slots(config: MemoryConfig, state: PortableState, slots: int) -> PortableState:
    """A memory in so many slots, one slot after the other: what is evicted first is left out."""

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
