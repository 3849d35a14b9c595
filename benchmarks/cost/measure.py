"""Measures raremem and its peers on a workload."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from raremem.benchmarks.cost.steps import compiled_step, module_step, training_step
from raremem.benchmarks.cost.timing import as_graph, median_ms, on_cuda, peak_extra_mb
from raremem.benchmarks.cost.workload import Workload, full_memory


def measure(workload: Workload, backend: Any, seconds: float) -> dict[str, float]:
    """Measure raremem and the peers that run in this process, each figure for so many seconds.

    Returns:
        Milliseconds by name; "certain", the share in % of queries whose first shortlist was proven to be enough; and "peak",
        in MB. Figures that do not apply are left out.
    """
    keys, values, queries, targets = workload.data()
    config = workload.config
    state = full_memory(backend, config, keys, values, workload.batch, seed=1)
    p = backend.table_for(*state)
    batches = [tuple(p.asarray(array, state.keys) for array in batch) for batch in zip(queries, targets, strict=True)]
    rows, wanted = batches[0]
    found = {
        "query": median_ms(lambda: _ready(backend.query(config, state, rows).values), seconds),
        "query with targets": median_ms(lambda: _ready(backend.query(config, state, rows, wanted).loss), seconds),
    }
    if backend.name == "torch" and p.eager:
        found["certain"] = 100 * float(backend.searcher.eager.certain(p, state, rows, config.k).float().mean())
    step = training_step(backend, config, state, batches)
    peak = peak_extra_mb(step)
    if peak is not None:
        found["peak"] = peak
    found["step"] = median_ms(step, seconds)
    if on_cuda() and len(batches) == 1:  # a graph has one input
        found["graph"] = median_ms(as_graph(module_step(config, state, batches)), seconds)
    elif backend.name == "torch" and workload.also_compiled:
        state = full_memory(backend, config, keys, values, workload.batch, seed=1)
        found["compiled"] = median_ms(compiled_step(config, state, batches), seconds)
    if importlib.util.find_spec("torch") is None:
        return found | {"limit": max(median_ms(lambda: queries[0] @ keys.T, seconds), median_ms(keys.max, seconds))}
    from raremem.benchmarks.cost import plain_torch

    return found | plain_torch.measure(workload.neighbors, keys, values, queries, targets, seconds)


def _ready(array: Any) -> None:
    """Wait until JAX has computed an array."""
    if hasattr(array, "block_until_ready"):
        array.block_until_ready()


def faiss_ms(workloads: Sequence[Workload], seconds: float) -> list[float] | None:
    """Milliseconds of faiss's exact search alone, in a process of its own; None if faiss is not installed."""
    if importlib.util.find_spec("faiss") is None:
        return None
    asked = json.dumps([asdict(workload) for workload in workloads])
    command = [sys.executable, "-m", "raremem.benchmarks.cost.faiss_search", str(seconds), asked]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
