"""Reasons why a mutant survives."""

from __future__ import annotations

from dataclasses import dataclass

ONE_AXIS = "The array has one dimension, and one index array: its only axis is the last one, and the same as none."
LAST_AXIS = "The last axis, which is the default, is the axis 1."
TIME = "It decides how much is computed at a time, or in which of two ways; only time and memory differ, not the answers."
WAY = "It decides in which of two ways rows are scored; both are right within rounding, and only time and memory differ."
EMPTY = "Without the empty slots at the end of a memory a search takes less time: nothing that is empty is ever found."
COMMUTES = "The operation commutes in every framework, also with a Python number."
EITHER_ORDER = "The least, or the largest, of two numbers is the same in either order."


@dataclass(frozen=True)
class Explained:
    """A mutant, by the parts of its key, and the reason why no law breaks."""

    module: str
    function: str
    before: str
    after: str
    reason: str
    told: bool = False
    """Whether some user could tell."""

    @property
    def key(self) -> str:
        """The key of the mutant."""
        return f"{self.module}:{self.function}: {self.before} -> {self.after}"
