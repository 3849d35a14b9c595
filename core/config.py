"""The static half of a memory: everything that is fixed when it is made."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from .errors import ConfigError

MAX_INT32 = 2**31 - 1
MAX_FLOAT32 = (2 - 2.0**-23) * 2.0**127
F32_ROUNDOFF = 2.0**-24
"""Unit roundoff of f32."""

LOSSES = ("margin", "nll")
EVICTIONS = ("oldest", "least_hit")
WRITES = ("merge", "keep")


@dataclasses.dataclass(frozen=True)
class MemoryConfig:
    """Size and behaviour of a memory. Frozen and hashable, so it can be a static argument of `jax.jit`.

    Attributes:
        slots: how many (key, value, age) triples the memory holds (paper, section 2: memory-size).
        key_dim: length of a key and of a query (paper: key-size).
        neighbors: how many nearest neighbors a query returns (paper: k = 256).
        margin: the loss asks that the positive be this much more similar than the negative (paper: alpha = 0.1).
        softmax_temperature: factor on the cosine similarities before the softmax over neighbors (paper: t = 40).
        age_noise: half width of the whole-number noise added to ages when a slot is chosen to be overwritten
            (paper: r_i, "a random number that introduces some randomness").
        seed: seed of that noise.
        loss: "margin" (paper, section 2.1) or "nll", the negative log-likelihood of the target under the weights of the
            retrieved neighbors (our choice, rule 3: it has a gradient from every neighbor and not from two, and trains
            networks for few-shot classification further).
        evict: which slot a miss takes when none is empty: the "oldest" (paper, section 2.2), or the "least_hit", of those hit
            equally often the oldest (our choice, rule 5: what was confirmed once is kept through a long absence, where
            age alone forgets it; `raremem bench lifelong` measures it).
        write: what a hit does: "merge" (paper, section 2.2) moves the key of its slot towards the row; "keep" leaves that key
            as it is, counts the hit, and gives the row a slot of its own, as a miss gets one (our choice, rule 13: every row
            that is accepted is kept, as nearest neighbors of all examples need it).

    Raises:
        ConfigError: a field has the wrong type or is out of range.

    >>> MemoryConfig(slots=100, key_dim=16).k
    100
    """

    slots: int = 8192
    key_dim: int = 128
    neighbors: int = 256
    margin: float = 0.1
    softmax_temperature: float = 40.0
    age_noise: int = 8
    seed: int = 0
    loss: str = "margin"
    evict: str = "oldest"
    write: str = "merge"

    def __post_init__(self) -> None:
        for name, low, high in (
            ("slots", 1, MAX_INT32),
            ("key_dim", 1, MAX_INT32),
            ("neighbors", 1, MAX_INT32),
            ("age_noise", 0, 2**20),
            ("seed", 0, 2**32 - 1),
        ):
            self._set_number(name, int, numbers.Integral, low, high, "a whole number")
        for name in ("margin", "softmax_temperature"):
            self._set_number(name, float, numbers.Real, 0.0, MAX_FLOAT32, "a number")
        for name, choices in (("loss", LOSSES), ("evict", EVICTIONS), ("write", WRITES)):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in choices:
                raise ConfigError(f"{name}={shown(value)}: expected one of {', '.join(choices)}.")
            object.__setattr__(self, name, choices[choices.index(value)])

    def _set_number(self, name: str, kind: type, accepted: type, low: float, high: float, expected: str) -> None:
        """Convert a field to `kind` from any accepted number, NumPy's too. -0.0 becomes 0.0, so that equal configs are one."""
        value = getattr(self, name)
        number = None
        if isinstance(value, accepted) and not isinstance(value, (bool, np.timedelta64)):
            with suppress(ArithmeticError, TypeError, ValueError):
                number = kind(value) + kind(0)
        if number is None or not low <= number <= high:
            raise ConfigError(f"{name}={shown(value)}: expected {expected} in [{low}, {high}].")
        object.__setattr__(self, name, number)

    @property
    def k(self) -> int:
        """Neighbors that a query can return: `min(neighbors, slots)`."""
        return min(self.neighbors, self.slots)


def check_config(config: object) -> None:
    """Check that a config is one.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(config, MemoryConfig):
        raise ConfigError(
            f"the config is a {type(config).__name__}; expected a MemoryConfig, such as MemoryConfig(slots=1000, key_dim=64)."
        )


def config_of(config: MemoryConfig | None, fields: Mapping[str, Any]) -> MemoryConfig:
    """The config of a module: the one that it is given, or one made of the fields that it is given instead.

    Raises:
        ConfigError: there is neither, or both.
        TypeError: a field is none of `MemoryConfig`, nor an option of the module.
    """
    if config is None and fields:
        return MemoryConfig(**fields)
    if config is not None and fields:
        raise ConfigError(
            f"{', '.join(fields)} are given beside a config; expected one of both: Memory(config), or Memory(slots=..., ...). "
            "To change a config, call dataclasses.replace(config, ...)."
        )
    check_config(config)
    assert config is not None, "checked"
    return config


def shown(value: object) -> str:
    """A value as text for an error message: in one line, cut if it is long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # Python refuses to write out a whole number of more than 4,300 digits
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 100 else f"{text[:60]}... ({len(text)} characters)"
