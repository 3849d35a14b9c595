"""Measures the time and the memory that a function takes, and records CUDA graphs."""

from __future__ import annotations

import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

STATM = Path("/proc/self/statm")
"""Where Linux says how large this process is."""
FEWEST = 3
"""Runs of which a median is taken, at least."""


def median_ms(run: Callable[[], object], seconds: float) -> float:
    """Median milliseconds of the runs that fit in so many seconds, at least three, after one warm-up run."""
    run()
    _wait()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < FEWEST or time.perf_counter() < end:
        started = time.perf_counter()
        run()
        _wait()
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)


def _wait() -> None:
    """Wait for the GPU, if PyTorch uses one."""
    if on_cuda():
        sys.modules["torch"].cuda.synchronize()


def on_cuda() -> bool:
    """Whether PyTorch has a GPU in use."""
    return "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized()


def peak_extra_mb(run: Callable[[], object]) -> float | None:
    """MB by which the process grows during runs, or PyTorch's memory on a GPU; None where the system does not report it."""
    if on_cuda():
        cuda = sys.modules["torch"].cuda
        cuda.reset_peak_memory_stats()
        before = cuda.memory_allocated()
        run()
        return (cuda.max_memory_allocated() - before) / 1e6
    if not STATM.is_file():
        return None
    done = threading.Event()
    seen = [_resident_mb()]

    def watch() -> None:
        while not done.wait(0.0005):
            seen.append(_resident_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(FEWEST):
        run()
    done.set()
    watcher.join()
    return max(seen) - seen[0]


def _resident_mb() -> float:
    return int(STATM.read_text().split()[1]) * resource.getpagesize() / 1e6


def as_graph(step: Callable[[], object]) -> Callable[[], object]:
    """Record a step as one CUDA graph, and return a function that replays it without the cost of its calls."""
    import torch

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
