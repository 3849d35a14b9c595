"""The array half of a memory, what a query and an update return, and the portable form of a state.

A state is arrays only, of fixed shape: no Python counters, nothing static. The classes are named tuples, which every
framework can walk already (a JAX pytree, a torch pytree).
"""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .config import MAX_INT32, MemoryConfig, shown
from .errors import DTypeError, ShapeError, StateError

Array = Any
"""An array of whichever framework the backend is made of."""

backends_of: dict[type, Any] = {}
"""For each type of array its backend, which the methods of `Lookup` call. Every adapter adds its own."""

quietly = np.errstate(all="ignore")
"""A decorator for functions on NumPy arrays: it silences NumPy's errors and warnings of overflow, underflow and numbers that
are not finite, which the rules allow. (Not for functions that a compiler traces.)"""

NO_SLOT = -1
"""In `slots`: no such neighbor. In `values`: the slot is empty."""

STEP_PERIOD = 2**32
"""The step counter is 32 bits wide and wraps.

An age stops at 2**31 - 1; a slot that no update touches for 2**32 looks new.
"""


MAX_HITS = 127
"""Where the count of a slot's hits stops (rule 5): with it and an age of 24 bits, one i32 says which slot goes first."""


class MemoryState(NamedTuple):
    """What a memory holds (paper, section 2: K, V and A).

    Attributes:
        keys: [slots, key_dim] f32, unit rows; zero where the slot is empty.
        values: [slots] i32, 0 or above; -1 where the slot is empty.
        last_used: [slots] i32, the step at which the slot was last written or hit. The age is `step - last_used`:
            storing the step means that an update touches only the slots it writes (our choice).
        hits: [slots] i32, how many rows have hit the slot since it was written; it stops at 127.
        step: [] i32, how many updates wrote anything.
    """

    keys: Array
    values: Array
    last_used: Array
    hits: Array
    step: Array


class Lookup(NamedTuple):
    """The answer to a batch of queries.

    Attributes:
        values: [B, k] i32, values of the nearest neighbors, most similar first; -1 where there is none.
        slots: [B, k] i32, their slots; -1 where there is none.
        similarities: [B, k] f32, their cosine similarities; 0 where there is none. Differentiable.
        weights: [B, k] f32, softmax(temperature * similarity) over the neighbors there are; else 0. Differentiable.
        found: [B] bool, the row was looked up and there was something to find: any filled slot, however unlike. False for rows
            that were masked or rejected, and for all rows of an empty memory. There `values` and `slots` are -1, and
            `similarities`, `weights` and `loss` are 0.
        loss: [B] f32, the margin loss, or None if no targets were given. Differentiable.
        queries: [B, key_dim] f32, the unit queries, as a constant; zero where the row was not looked up.
        targets: [B] i32, 0 where the row was not looked up; or None.
        rejected: [B] bool, rows refused by rule 1: not finite, no direction, or a target out of range.
        accepted: [B] bool, rows that were looked up: neither rejected nor masked.
        step: [B] i32, the memory's step when the row was looked up; 0 where it was not. An update by a lookup of another step
            looks the rows up again (rule 12), and so does one by a lookup without steps: None, in one made by hand.
    """

    values: Array
    slots: Array
    similarities: Array
    weights: Array
    found: Array
    loss: Array | None
    queries: Array
    targets: Array | None
    rejected: Array
    accepted: Array
    step: Array | None = None

    def recall(self, embedding: Array | Callable[[Array], Array]) -> Array:
        """What was retrieved, embedded: the mean of the rows of the neighbors' values by their weights. Differentiable.

        Args:
            embedding: [values, dim], a row for each value that the memory may hold; or a module such as `nn.Embedding` or
                `nnx.Embed`, which is called with values [B, k] and gives [B, k, dim]. It is called with value 0 where there is
                no neighbor.

        Returns:
            [B, dim]; zero where nothing was found.

        Raises:
            IndexError: a value has no row. (JAX, and what is compiled or on a GPU, cannot see that.)
            ShapeError, DTypeError: the embedding is none of these; or as `scores` does.
        """
        return _backend_of(self.weights).recall(self.weights, self.values, embedding)

    def scores(self, classes: int) -> Array:
        """How much weight the neighbors of each class have: the sums of the weights by their values. Differentiable.

        For more than a memory's own answer, `values[:, 0]`: class probabilities, and how sure they are.

        Args:
            classes: how many there are: values 0 to classes - 1. Others are left out.

        Returns:
            [B, classes] f32. A row sums to 1, less what lies in other values; it is zero where nothing was found.

        Raises:
            ShapeError: `classes` is no whole number, or less than 1.
            DTypeError: the arrays are of a framework that nobody has entered in `raremem.state.backends_of`.
        """
        if isinstance(classes, bool) or not isinstance(classes, (int, np.integer)) or classes < 1:
            raise ShapeError(f"classes={shown(classes)}: expected a whole number, 1 or more.")
        return _backend_of(self.weights).scores(self.weights, self.values, int(classes))

    def detach(self) -> Lookup:
        """The same without its gradients, to be kept: it holds no graph. `update` takes it as it takes this one."""
        return _backend_of(self.weights).detached(self)

    def numpy(self) -> Lookup:
        """A copy in NumPy, without gradients."""
        return _backend_of(self.weights).in_numpy(self)

    def to(self, device: Any) -> Lookup:
        """The same on another device, in PyTorch. (In JAX: `jax.device_put(out, device)`.) Dtypes stay: cast single fields.

        Raises:
            DeviceError: it is no lookup of PyTorch, or `device` is no device.
        """
        return _backend_of(self.weights).moved(self, device)


def _backend_of(array: Array) -> Any:
    """The backend whose arrays are of this type."""
    for kind, backend in backends_of.items():
        if isinstance(array, kind):
            return backend
    if isinstance(array, np.ndarray):  # of the oracle, where no adapter has been imported
        return importlib.import_module("raremem.adapters.numpy").backend
    raise DTypeError(
        f"the lookup's arrays are of {type(array).__name__}; expected a type in raremem.state.backends_of. "
        "Enter your backend there: backends_of[type] = backend."
    )


class UpdateReport(NamedTuple):
    """What an update did with each row.

    Attributes:
        slots: [B] i32, the slot that took the row; -1 if none did.
        hit: [B] bool, the nearest neighbor already had the row's value; its key moved towards the query (`write="merge"`).
        written: [B] bool, the row is in the memory now: in a slot of its own, or merged into the one that it hit.
        rejected: [] i32, rows refused by rule 1.
        dropped: [] i32, rows for which no slot was left.
        evicted: [] i32, filled slots that were overwritten.
    """

    slots: Array
    hit: Array
    written: Array
    rejected: Array
    dropped: Array
    evicted: Array


class ForgetReport(NamedTuple):
    """What a memory has forgotten.

    Attributes:
        forgotten: [slots] bool, the slot was filled, and is empty now.
        count: [] i32, how many these are.
    """

    forgotten: Array
    count: Array


PortableState = dict[str, Any]
"""`keys` [slots, key_dim] f32, `values` [slots] i32, `ages` [slots] i32, `filled` [slots] bool, `hits` [slots] i32, `step` int.

`hits` may be left out of what is given: then nothing was hit yet."""


@quietly
def to_portable(
    keys: NDArray[np.float32], values: NDArray[np.int32], last_used: NDArray[np.int32], hits: NDArray[np.int32], step: int
) -> PortableState:
    """The portable form of the NumPy arrays of a state. Empty slots hold key 0, value -1, age 0 and no hits."""
    filled = values != NO_SLOT
    ages = np.minimum((np.int64(step) - last_used.astype(np.int64)) % STEP_PERIOD, MAX_INT32).astype(np.int32)
    return {
        "keys": np.where(filled[:, None], keys, np.float32(0)),
        "values": values.copy(),
        "ages": np.where(filled, ages, np.int32(0)),
        "filled": filled,
        "hits": np.where(filled, hits, np.int32(0)),
        "step": step % STEP_PERIOD,
    }


@quietly
def check_portable(config: MemoryConfig, portable: Mapping[str, Any]) -> PortableState:
    """Return a portable state in canonical form, or say what is wrong with it.

    Raises:
        StateError: an entry is missing, or its shape, dtype or content does not fit `config`.
    """
    expected = {
        "keys": ((config.slots, config.key_dim), "f"),
        "values": ((config.slots,), "iu"),
        "ages": ((config.slots,), "iu"),
        "filled": ((config.slots,), "b"),
        "hits": ((config.slots,), "iu"),
    }
    portable = {"hits": np.zeros(config.slots, np.int32), **portable}
    arrays: dict[str, NDArray[Any]] = {}
    for name, (shape, kinds) in expected.items():
        if name not in portable:
            raise StateError(f"the state has no {name!r}; expected {', '.join(expected)} and step.")
        array = np.asarray(portable[name])
        if array.shape != shape or array.dtype.kind not in kinds:
            raise StateError(
                f"{name} has shape {array.shape} and dtype {array.dtype}; expected {shape} and kind {kinds!r} "
                "for this config. Load it with the config it was saved with."
            )
        arrays[name] = array
    step = _step(portable.get("step"))
    filled = arrays["filled"]
    keys = np.where(filled[:, None], arrays["keys"], 0).astype(np.float32, copy=False)
    values = _whole("values", arrays["values"], filled, MAX_INT32, NO_SLOT)
    ages = _whole("ages", arrays["ages"], filled, MAX_INT32, 0)
    hits = _whole("hits", arrays["hits"], filled, MAX_HITS, 0)
    norms = np.sqrt(np.einsum("sd,sd->s", keys, keys, dtype=np.float64))[filled]
    if not np.all(np.abs(norms - 1) <= 1e-3):
        worst = int(np.flatnonzero(filled)[np.argmax(np.nan_to_num(np.abs(norms - 1), nan=np.inf))])
        norm = norms[int(filled[:worst].sum())]
        raise StateError(
            f"the key of slot {worst} has norm {norm:.4g}; expected a finite unit vector in filled slots. "
            "Something beside update has changed it (weight decay, an average of parameters): leave keys out of that."
        )
    return {"keys": keys, "values": values, "ages": ages, "filled": filled.copy(), "hits": hits, "step": step}


def _whole(name: str, array: NDArray[Any], filled: NDArray[np.bool_], most: int, empty: int) -> NDArray[np.int32]:
    """Check whole numbers [slots] of any width, and return them as i32, with `empty` in the slots that are not filled."""
    there = array[filled]
    bad = (there < 0) | (there > most)
    if bad.any():
        slot = int(np.flatnonzero(filled)[np.argmax(bad)])
        raise StateError(f"{name} have {array[slot]} in slot {slot}; expected [0, {most}].")
    whole = np.full(array.shape, empty, np.int32)
    whole[filled] = there
    return whole


def _step(step: Any) -> int:
    """The step as an int, from a whole number of any kind: Python's, NumPy's, or an array [] of them."""
    try:
        number = -1 if isinstance(step, bool) or np.ndim(step) else operator.index(step)
    except TypeError:
        number = -1
    if not 0 <= number < STEP_PERIOD:
        raise StateError(f"step is {step!r}; expected a whole number in [0, {STEP_PERIOD}).")
    return number


def kept_slots(config: MemoryConfig, portable: PortableState, slots: int) -> NDArray[np.int32]:
    """For each slot [slots] of a resized memory the old slot that it takes over, or -1 if it is new and empty.

    With fewer slots, those that would be evicted first are left out. With more, the new ones come last.
    """
    if slots >= config.slots:
        return np.append(np.arange(config.slots), np.full(slots - config.slots, NO_SLOT)).astype(np.int32)
    hits = portable["hits"] if config.evict == "least_hit" else np.zeros_like(portable["hits"])
    first_to_go = np.lexsort((-portable["ages"], hits, portable["filled"]))
    return np.sort(first_to_go[config.slots - slots :]).astype(np.int32)


def resized(config: MemoryConfig, portable: PortableState, slots: int) -> tuple[PortableState, NDArray[np.int32]]:
    """A checked portable state in another number of slots, and the old slot of each; see `kept_slots`."""
    kept, whole = kept_slots(config, portable, slots), empty_portable(replace(config, slots=slots))
    there = kept != NO_SLOT
    for name in whole.keys() - {"step"}:
        whole[name][there] = portable[name][kept[there]]
    return {**whole, "step": portable["step"]}, kept


def count_values(values: NDArray[np.int32]) -> dict[int, int]:
    """How many slots hold each value, ascending by value. `values` [slots] are those of a memory."""
    found, counts = np.unique(values[values != NO_SLOT], return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def empty_portable(config: MemoryConfig) -> PortableState:
    """The portable form of a memory that has seen nothing."""
    return {
        "keys": np.zeros((config.slots, config.key_dim), np.float32),
        "values": np.full(config.slots, NO_SLOT, np.int32),
        "ages": np.zeros(config.slots, np.int32),
        "filled": np.zeros(config.slots, np.bool_),
        "hits": np.zeros(config.slots, np.int32),
        "step": 0,
    }


def from_portable(portable: PortableState) -> MemoryState:
    """The NumPy `MemoryState` of a checked portable state."""
    step = wrap_int32(portable["step"])
    last_used = (np.int64(step) - portable["ages"].astype(np.int64)).astype(np.int32)
    return MemoryState(portable["keys"], portable["values"], last_used, portable["hits"], np.asarray(step, np.int32))


def wrap_int32(number: int) -> int:
    """The whole number in [-2**31, 2**31) that equals `number` modulo 2**32."""
    return (number + 2**31) % 2**32 - 2**31
