"""What a law is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from raremem.backend import Backend
from raremem.reference.strategies import Size

Check = Callable[[Backend, Any], None]


@dataclass(frozen=True)
class Law:
    """One law: its name, the rule of the specification it holds, what it is run on, and its body."""

    name: str
    rule: str
    strategy: Callable[[tuple[Size, ...]], st.SearchStrategy[Any]]
    check: Check
    needs: str | None = None
    """A capability that a backend must declare."""
    costly: bool = False
    """It is tried on a tenth of the cases."""
    late: bool = False
    """It takes long: a planted fault is tried on it only if the others have let it pass, as on costly ones."""

    def runs_on(self, backend: Backend) -> bool:
        """Whether the backend declares what the law needs."""
        return self.needs is None or self.needs in backend.capabilities
