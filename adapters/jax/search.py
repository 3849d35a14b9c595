"""The search in JAX: the portable scan, in chunks that suit the device."""

from __future__ import annotations

import jax

from raremem.adapters.jax.primitives import Array
from raremem.primitives import Primitives
from raremem.search.contract import Found, Searcher
from raremem.search.portable import PortableScan, ScanPlan
from raremem.state import MemoryState


class JaxSearch(Searcher):
    """`PortableScan` with sizes for the default device.

    Args:
        on_cpu: sizes on a CPU; default `ScanPlan()`.
        elsewhere: sizes on a GPU or TPU; default `ScanPlan(held=2**28)`.
    """

    def __init__(self, on_cpu: ScanPlan | None = None, elsewhere: ScanPlan | None = None) -> None:
        self.on_cpu = PortableScan(on_cpu)
        self.elsewhere = PortableScan(ScanPlan(held=2**28) if elsewhere is None else elsewhere)

    def find(self, p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int) -> Found:
        """See `Searcher.find`."""
        scan = self.on_cpu if jax.default_backend() == "cpu" else self.elsewhere
        return scan.find(p, state, queries, targets, k)
