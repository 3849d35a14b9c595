"""Why no law notices a mutant."""

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
