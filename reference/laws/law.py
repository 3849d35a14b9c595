"""The class of laws."""

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
    """A law: its name, the rule of the specification that it tests, the strategy of its cases, and its body."""

    name: str
    rule: str
    strategy: Callable[[tuple[Size, ...]], st.SearchStrategy[Any]]
    check: Check
    needs: str | None = None
    """A capability that a backend must declare for it to run; None: it runs on all."""
    costly: bool = False
    """Whether it is tried on a tenth of the cases."""
    late: bool = False
    """Whether it is slow. Slow and costly laws are tried on a planted fault only if no other law has caught it."""

    def runs_on(self, backend: Backend) -> bool:
        """Whether the backend declares the capability that the law needs."""
        return self.needs is None or self.needs in backend.capabilities
