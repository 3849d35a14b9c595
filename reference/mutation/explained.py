"""Mutants that no law notices: each with the reason why.

Most are here because no user could tell: nothing of them can be seen in any answer, at any size, on any backend; how long a
call takes, and how much memory, is not seen. What some user could tell, but no law on these backends, is `told`, and counts as
left. An entry that fits no mutant of today's code is an error, and so is one that a law kills.
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
    told: bool = False
    """Some user could tell."""

    @property
    def key(self) -> str:
        """The mutant's."""
        return f"{self.module}:{self.function}: {self.before} -> {self.after}"


EXPLAINED: tuple[Explained, ...] = ()
