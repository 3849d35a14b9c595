"""What is checked before anything is computed: shapes, dtypes, targets, and the state itself.

Shapes and dtypes are known even inside `jax.jit` and `torch.compile`. Contents are looked at only where that is free: on the
CPU, outside a trace. Elsewhere a bad row is rejected (rule 1) instead of raising.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import MAX_INT32, MemoryConfig, check_config, shown
from .errors import DTypeError, ForgetError, RejectedRowsError, ShapeError, StateError, TargetError
from .state import Array, Lookup

TARGET_DTYPES = ("int8", "int16", "int32", "int64", "uint8")
TEXT_DTYPES = ("str", "bytes", "object")
"""Beginnings of the names of NumPy's dtypes that hold text or objects."""


def dtype_name(array: Array) -> str:
    """The NumPy name of an array's dtype, whichever framework it is from.

    Frameworks spell them "float32", ">f4" (NumPy, of another byte order, whose name is as any), "torch.float32",
    "mlx.core.float32", "<dtype: 'float32'>" (TensorFlow) or "<class 'numpy.float32'>": the name is the last word.
    """
    dtype = array.dtype
    name = getattr(dtype, "name", None)
    name = name if isinstance(name, str) else str(dtype)
    last = name.rpartition(".")[2]
    if not last.isidentifier():
        words = "".join([letter if letter.isalnum() or letter == "_" else " " for letter in name]).split()
        last = words[-1] if words else str(dtype)
    return last.rstrip("_").lower()


def no_array(name: str, given: Any) -> DTypeError:
    """The error for an argument that is no array; `name` is what messages call it, in the plural."""
    if isinstance(given, str) or (isinstance(given, (list, tuple)) and given and isinstance(given[0], str)):
        return _labels(name, "str")
    return DTypeError(f"{name} are a {type(given).__name__}; expected an array. Convert them, say with numpy.asarray.")


def check_numbers(name: str, column: Array, dtypes: tuple[str, ...]) -> str:
    """Check that an array has one of these dtypes, and return the dtype's name. Messages call the array `name`."""
    dtype = dtype_name(column)
    if dtype.startswith(TEXT_DTYPES):
        raise _labels(name, dtype.rstrip("0123456789"))
    if dtype not in dtypes:
        raise DTypeError(f"{name} are {dtype}; expected one of {', '.join(dtypes)}. Cast them first.")
    return dtype


def _labels(name: str, kind: str) -> DTypeError:
    """The error for labels that are text or objects."""
    return DTypeError(
        f"{name} are labels ({kind}); expected whole numbers, of 0 or above. Map labels to them with a dict or scikit-learn's "
        "LabelEncoder; or use raremem.adapters.sklearn.MemoryClassifier, which takes labels of any kind."
    )


def check_kinds(config: Any, state: Any, kind: type) -> None:
    """Check that `config` is a `MemoryConfig`, and that `state` is of `kind`, the class of this backend's states."""
    check_config(config)
    if not isinstance(state, kind):
        raise StateError(f"the state is a {type(state).__name__}; expected a {kind.__name__}, as this backend's init gives.")


def check_to_write(targets: Any, lookup: Any, batch: int) -> None:
    """Check that an update has targets, and that its lookup, if there is one, has `batch` rows."""
    if targets is None:
        raise TargetError("there are no targets; expected one for each row, to be written. Mask rows that have none.")
    if lookup is None:
        return
    check_lookup(lookup)
    if lookup.accepted.shape[0] != batch:
        raise ShapeError(
            f"the lookup is of {lookup.accepted.shape[0]} rows; expected {batch}, as the queries have. "
            "Give the one that query answered for them, or leave it out."
        )


def check_lookup(lookup: Any) -> None:
    """Check that what is given for a lookup is one."""
    if not isinstance(lookup, Lookup):
        raise DTypeError(
            f"the lookup is a {type(lookup).__name__}; expected what a query of this memory gave: out = memory(query, target), "
            "then memory.update(out). A module writes rows that are not looked up by memory.store(query, target)."
        )


def check_queries(config: MemoryConfig, queries: Array) -> int:
    """Check that queries are [B, key_dim] of some float dtype, and return B, which may be 0."""
    check_rows(queries, config.key_dim, "key_dim")
    if "float" not in dtype_name(queries):
        raise DTypeError(f"queries are {dtype_name(queries)}; expected a float dtype. Cast them first.")
    batch: int = queries.shape[0]
    return batch


def check_rows(queries: Array, width: int, field: str) -> None:
    """Check that queries are [B, width]. `field` is the name of the option that sets the width."""
    if not (hasattr(queries, "shape") and hasattr(queries, "dtype")):
        raise no_array("queries", queries)
    shape = tuple(queries.shape)
    if len(shape) == 2 and shape[1] == width:
        return
    mend = f"Reshape them, or make the memory with that {field}."
    if len(shape) > 2 and shape[-1] == width:
        mend = f"Flatten them with reshape(-1, {width}), and targets and mask with reshape(-1); answers have a row for each."
    elif shape == (width,):
        mend = "One row is a batch of one: queries[None]."
    raise ShapeError(f"queries have shape {shape}; expected [batch, {width}] for {field}={width}. {mend}")


def check_batch_size(size: Any, rows: int) -> int:
    """Check a `batch_size`, and return it; for None, the number of rows, at least 1."""
    if size is None:
        return max(rows, 1)
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise ShapeError(f"batch_size={shown(size)}: expected a whole number, 1 or more; or None, for one batch.")
    return int(size)


def check_column(name: str, column: Array, batch: int, dtypes: tuple[str, ...]) -> str:
    """Check that `column` is [batch] of one of these dtypes, and return the dtype's name. Messages call it `name`."""
    if not (hasattr(column, "shape") and hasattr(column, "dtype")):
        raise no_array(name, column)
    shape = tuple(column.shape)
    if shape != (batch,):
        mend = " Flatten them with reshape(-1)." if len(shape) > 1 and math.prod(shape) == batch else ""
        raise ShapeError(f"{name} have shape {shape}; expected [{batch}], one for each row of the queries.{mend}")
    return check_numbers(name, column, dtypes)


def check_targets(targets: NDArray[Any], mask: NDArray[np.bool_] | None) -> None:
    """Check that the targets of the rows that are not masked are in [0, 2**31 - 1]."""
    if not targets.size or (targets.min() >= 0 and targets.max() <= MAX_INT32):
        return
    bad = (targets < 0) | (targets.astype(np.int64) > MAX_INT32)
    if mask is not None:
        bad &= mask
    if bad.any():
        row = int(np.argmax(bad))
        raise TargetError(
            f"target {targets[row]} in row {row}; expected [0, {MAX_INT32}]. "
            "Map labels into that range, or mask rows that have none."
        )


def check_named(config: MemoryConfig, slots: Any, values: Any, older_than: Any) -> tuple[Any, Any]:
    """Check the arguments of `forget`, and return slots and values: None or arrays [n], also of numbers and lists."""
    if slots is None and values is None and older_than is None:
        raise ForgetError("nothing is named; expected slots=, values= or older_than=. To forget all, call clear.")
    if older_than is not None:
        whole = isinstance(older_than, (int, np.integer)) and not isinstance(older_than, bool)
        if not whole or not 0 <= older_than <= MAX_INT32:
            raise ForgetError(
                f"older_than={shown(older_than)}: expected a whole number in [0, {MAX_INT32}], an age in updates."
            )
    slots, values = _as_column("slots", slots), _as_column("values", values)
    if slots is not None and dtype_name(slots) == "bool" and tuple(slots.shape) != (config.slots,):
        raise ShapeError(
            f"the mask of slots has shape {tuple(slots.shape)}; expected [{config.slots}], one entry for each slot. "
            "Give such a mask, or the numbers of slots."
        )
    for name, column, dtypes in (("slots", slots, (*TARGET_DTYPES, "bool")), ("values", values, TARGET_DTYPES)):
        if column is not None:
            check_numbers(name, column, dtypes)
    return slots, values


def _as_column(name: str, given: Any) -> Any:
    """An array of any framework, a number, or a list as an array [n]; None stays None."""
    if given is None:
        return None
    array = given if hasattr(given, "shape") and hasattr(given, "dtype") else np.asarray(given)
    if len(array.shape) > 1:
        raise ShapeError(f"{name} have shape {tuple(array.shape)}; expected [n]. Flatten them.")
    if array is not given and not array.size:
        array = array.astype(np.int32)
    return array.reshape(-1)


def check_named_numbers(name: str, seen: NDArray[Any] | None, least: int, most: int) -> None:
    """Check that the slots or values of a `forget` are in [least, most]; None stands for an array whose content is not seen."""
    if seen is None or seen.dtype == np.bool_:
        return
    bad = (seen < least) | (seen.astype(np.int64) > most)
    if bad.any():
        raise ForgetError(f"{name} have {seen[np.argmax(bad)]}; expected [{least}, {most}]. Leave out what is not there.")


def check_no_rejects(rejected: NDArray[np.bool_] | None) -> None:
    """With `strict=True`: raise if any row was rejected. None stands for rows whose content a trace hides."""
    if rejected is None:
        raise RejectedRowsError(
            "strict=True cannot look at rows while they are traced by a compiler. "
            "Call it outside jit or compile, or read `rejected` from the result."
        )
    if rejected.any():
        rows = np.flatnonzero(rejected).tolist()
        raise RejectedRowsError(
            f"query rows {rows[:20]} are not finite or have norm zero; expected finite rows with a direction. "
            "Mend or mask them, or leave out strict=True to have them skipped and counted."
        )


def check_state(config: MemoryConfig, shape: tuple[int, ...]) -> None:
    """Check that a state fits its config. `shape` is that of the state's keys."""
    if tuple(shape) != (config.slots, config.key_dim):
        raise StateError(
            f"the state's keys have shape {tuple(shape)}; expected [{config.slots}, {config.key_dim}]. "
            "Use the config that the state was made with."
        )


def check_padding(rows: int, expected: int) -> None:
    """Check that the keys of a state have as many rows as the backend gives them: on a mesh they are padded."""
    if rows != expected:
        raise StateError(
            f"the state's keys have {rows} rows; expected {expected} for this backend. Use the one that the state was made by, "
            "or take it to this one: from_numpy(config, other.to_numpy(state))."
        )
