"""Labels of a classifier: of one kind all its life, and none that becomes another when arrays are put together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from raremem.config import shown

Labels = NDArray[Any]


def kind(labels: Labels) -> str:
    """What labels are, by their dtype."""
    return {"b": "booleans", "i": "numbers", "u": "numbers", "f": "numbers"}.get(labels.dtype.kind, "texts")


def check_kind(name: str, labels: Labels, first: Labels) -> None:
    """Check that labels are texts, numbers or booleans as the first were.

    Raises:
        ValueError: they are of another kind, or texts and something else in one array.
    """
    if labels.size and kind(labels) != kind(first):
        raise ValueError(
            f"{name} has labels of dtype {labels.dtype}; expected them of the kind of the first, {kind(first)} ({first.dtype})."
        )
    others = sorted(each.__name__ for each in set(map(type, labels.flat)) if not issubclass(each, str))
    if labels.dtype == object and others:
        raise ValueError(f"Unknown label type: {name} has {', '.join(others)} in an array of objects; expected texts alone.")


def label_of_unknown(label: Any, classes: Labels) -> Any:
    """The answer for rows that are unknown: `label`, or "unknown" among texts and -1 among numbers if it is None.

    Raises:
        ValueError: it is of another kind than the classes, or one of them.
    """
    texts = kind(classes) == "texts"
    if label is None:
        label = "unknown" if texts else -1
    if classes.dtype != object and (kind(np.asarray(label)) == "texts") != texts:
        raise ValueError(f"unknown_label={shown(label)}: expected one of {kind(classes)}, as `classes_` are.")
    if label in classes:
        raise ValueError(f"unknown_label={shown(label)} is in `classes_`; expected another.")
    return label


def together(*parts: Labels) -> list[Labels]:
    """Arrays of labels of one kind in one dtype, that of the first if it has all of them, so that equal labels are equal there.

    Raises:
        ValueError: no dtype has all of them.
    """
    wider = np.result_type(*parts)
    for dtype in (parts[0].dtype, wider):
        if all(_is_exact(part, dtype) for part in parts):
            return [part.astype(dtype) for part in parts]
    dtypes = ", ".join(dict.fromkeys(str(part.dtype) for part in parts))
    raise ValueError(f"labels of dtypes {dtypes} are not told apart as {wider}; expected them in the dtype of the first.")


def _is_exact(labels: Labels, dtype: np.dtype[Any]) -> bool:
    """Whether labels stay what they are in that dtype. One comparison is not enough: that of whole numbers with floats rounds,
    and a negative number comes back from an unsigned one."""
    with np.errstate(invalid="ignore"):
        there = labels.astype(dtype)
        return bool((there == labels).all() and (there.astype(labels.dtype) == labels).all())
