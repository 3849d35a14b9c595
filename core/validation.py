"""What is checked before anything is computed: shapes, dtypes, targets, and the state itself.

Shapes and dtypes are known even inside `jax.jit` and `torch.compile`. Contents are looked at only where that is free: on the
CPU, outside a trace. Elsewhere a bad row is rejected (rule 1) instead of raising.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import MAX_INT32, MemoryConfig
from .errors import ConfigError, DTypeError, RejectedRowsError, ShapeError, StateError, TargetError
from .state import Array

TARGET_DTYPES = ("int8", "int16", "int32", "int64", "uint8")


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


def check_is_array(name: str, array: Any) -> None:
    """Check that what is called `name` in messages is an array."""
    if not (hasattr(array, "shape") and hasattr(array, "dtype")):
        raise DTypeError(f"{name} are a {type(array).__name__}; expected an array. Convert them, say with numpy.asarray.")


def check_kinds(config: Any, state: Any, kind: type) -> None:
    """Check that a config is one, and a state one of this backend, whose states are of this kind."""
    if not isinstance(config, MemoryConfig):
        raise ConfigError(f"the config is a {type(config).__name__}; expected a MemoryConfig.")
    if not isinstance(state, kind):
        raise StateError(f"the state is a {type(state).__name__}; expected a {kind.__name__}, as this backend's init gives.")


def check_to_write(targets: Any, lookup: Any, batch: int) -> None:
    """Check that there are targets to be written, and that a lookup, if there is one, is of so many rows."""
    if targets is None:
        raise TargetError("there are no targets; expected one for each row, to be written. Mask rows that have none.")
    if lookup is not None and lookup.accepted.shape[0] != batch:
        raise ShapeError(
            f"the lookup is of {lookup.accepted.shape[0]} rows; expected {batch}, as the queries have. "
            "Give the one that query answered for them, or leave it out."
        )


def check_queries(config: MemoryConfig, queries: Array, least: int = 1) -> int:
    """The batch size, if `queries` are [B, key_dim] of some float dtype with B at least so many."""
    check_is_array("queries", queries)
    shape = tuple(queries.shape)
    if len(shape) != 2 or shape[1] != config.key_dim:
        raise ShapeError(
            f"queries have shape {shape}; expected [batch, {config.key_dim}] for key_dim={config.key_dim}. "
            "Reshape them, or make the memory with that key_dim."
        )
    if shape[0] < least:
        raise ShapeError("queries are an empty batch; expected at least one row. Leave out the call instead.")
    if "float" not in dtype_name(queries):
        raise DTypeError(f"queries are {dtype_name(queries)}; expected a float dtype. Cast them first.")
    return shape[0]


def check_column(name: str, column: Array, batch: int, dtypes: tuple[str, ...]) -> None:
    """Check that `column`, called `name` in messages, is [batch] of one of these dtypes."""
    check_is_array(name, column)
    if tuple(column.shape) != (batch,):
        raise ShapeError(f"{name} have shape {tuple(column.shape)}; expected [{batch}], one for each row of the queries.")
    if dtype_name(column) not in dtypes:
        raise DTypeError(f"{name} are {dtype_name(column)}; expected one of {', '.join(dtypes)}. Cast them first.")


def check_targets(targets: NDArray[Any], mask: NDArray[np.bool_] | None) -> None:
    """Check that the targets of the rows that count are in [0, 2**31 - 1]."""
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


def check_no_rejects(rejected: NDArray[np.bool_] | None) -> None:
    """With `strict=True`: raise if any row was rejected; None stands for rows that cannot be seen in a trace."""
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
    """Check that a state whose key table has this shape is one of this config."""
    if tuple(shape) != (config.slots, config.key_dim):
        raise StateError(
            f"the state's keys have shape {tuple(shape)}; expected [{config.slots}, {config.key_dim}]. "
            "Use the config that the state was made with."
        )
