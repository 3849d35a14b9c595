"""The static half of a memory: everything that is fixed when it is made."""

from __future__ import annotations

import dataclasses
import math
import numbers

from .errors import ConfigError

MAX_INT32 = 2**31 - 1

LOSSES = ("margin", "nll")
EVICTIONS = ("oldest", "least_hit")


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

    def __post_init__(self) -> None:
        for name, low, high in (
            ("slots", 1, MAX_INT32),
            ("key_dim", 1, MAX_INT32),
            ("neighbors", 1, MAX_INT32),
            ("age_noise", 0, 2**20),
            ("seed", 0, 2**32 - 1),
        ):
            value = getattr(self, name)
            whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
            if not whole or not low <= int(value) <= high:
                raise ConfigError(f"{name}={value!r}: expected a whole number in [{low}, {high}].")
            object.__setattr__(self, name, int(value))
        for name, low_bound in (("margin", 0.0), ("softmax_temperature", 0.0)):
            value = getattr(self, name)
            number = isinstance(value, numbers.Real) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < low_bound:
                raise ConfigError(f"{name}={value!r}: expected a finite number, {low_bound} or above.")
            object.__setattr__(self, name, float(value))
        for name, choices in (("loss", LOSSES), ("evict", EVICTIONS)):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(choices)}.")

    @property
    def k(self) -> int:
        """Neighbors that a query can return: `min(neighbors, slots)`."""
        return min(self.neighbors, self.slots)
