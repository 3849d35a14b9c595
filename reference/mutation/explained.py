"""Mutants that no law notices, because no user could tell: each with the reason why.

Add to this list only what cannot be seen in any answer, at any size, on any backend; how long a call takes is not seen. What
can be seen lacks a law. An entry that fits no mutant of today's code is an error, and so is one that a law kills.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Explained:
    """A mutant, as its key has it, and why it is no fault."""

    module: str
    function: str
    before: str
    after: str
    reason: str

    @property
    def key(self) -> str:
        """The mutant's."""
        return f"{self.module}:{self.function}: {self.before} -> {self.after}"


EXPLAINED: tuple[Explained, ...] = ()
