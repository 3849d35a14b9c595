"""What a step of training costs, beside what others need for it, over memories of many sizes.

A step is a query with its loss and gradient, and an update. Every figure is the median of several runs, on keys in clusters of
twenty, with queries near them, half of which hit. The limit is what no search in f32 goes below: the time of the bare product
of queries and keys, or of reading the keys once, whichever is longer. (A scan in lower precision can.)
"""

from __future__ import annotations

import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import raremem
from raremem import search
from raremem.benchmarks.progress import progress
from raremem.benchmarks.report.pages import Outcome
from raremem.benchmarks.runner import Setting
from raremem.config import MemoryConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SLOTS = (8_192, 131_072, 1_048_576)
BATCHES = (16, 256)
KEY_DIMS = (64, 128)
NEIGHBORS = (1, 16, 256)
SMALL = 8_192
"""Slots up to which the compiled step is measured too: there, calls of small operations are most of the eager one."""
IN_CLUSTER = 20
SPREAD = np.float32(0.3)
"""Of a cluster, where its center has 1 in each dimension."""
STATM = Path("/proc/self/statm")
"""Where Linux says how large this process is."""
FEWEST = 3
"""Runs of which a median is taken, at least."""

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """A size: slots, rows of a batch, dimensions of a key, neighbors."""

    slots: int
    batch: int
    key_dim: int
    neighbors: int

    @property
    def config(self) -> MemoryConfig:
        """The memory's."""
        return MemoryConfig(self.slots, self.key_dim, self.neighbors)

    def data(self) -> tuple[Rows, NDArray[np.int32], Rows, NDArray[np.int32]]:
        """Unit keys and their values, unit queries and their targets."""
        generator = np.random.default_rng(0)
        classes = -(-self.slots // IN_CLUSTER)
        centers = generator.standard_normal((classes, self.key_dim), np.float32)
        values = np.resize(np.arange(classes, dtype=np.int32), self.slots)
        keys = near(generator, centers[values])
        targets = generator.choice(classes, self.batch).astype(np.int32)
        queries = near(generator, centers[targets])
        targets[::2] = generator.integers(classes, 2 * classes, len(targets[::2]))
        return keys, values, queries, targets


CASES = [Case(*sizes) for sizes in np.array(np.meshgrid(SLOTS, BATCHES, KEY_DIMS, NEIGHBORS)).reshape(4, -1).T.tolist()]
CASES.append(Case(10_000_000, 16, 64, 16))


def near(generator: np.random.Generator, centers: Rows) -> Rows:
    """A unit row near each of these centers of clusters."""
    rows = centers + SPREAD * generator.standard_normal(centers.shape, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def full_memory(backend: Any, config: MemoryConfig, keys: Rows, values: NDArray[np.int32], batch: int, seed: int) -> Any:
    """A state with every slot filled, last used as if batches of so many rows had each used as many."""
    step = config.slots // batch
    ages = np.random.default_rng(seed).permutation(config.slots).astype(np.int32) // batch
    return backend.from_numpy(config, {"keys": keys, "values": values, "ages": ages, "filled": values >= 0, "step": step})


def median_ms(run: Callable[[], object], seconds: float) -> float:
    """Milliseconds of a run: the median of those that fit in so many seconds, at least three, after one that warms up."""
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
    """Until the GPU has done all that PyTorch gave it, if there is one in use."""
    if on_cuda():
        sys.modules["torch"].cuda.synchronize()


def on_cuda() -> bool:
    """Whether PyTorch has a GPU in use."""
    return "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized()


def peak_extra_mb(run: Callable[[], object]) -> float | None:
    """MB by which the process grows while it runs, or PyTorch's part of the GPU; None where the system does not say."""
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


def measure(case: Case, backend: Any, seconds: float) -> dict[str, float]:
    """Milliseconds of raremem and of the peers in this process, and the share of rows whose first short list was enough."""
    keys, values, queries, targets = case.data()
    state = full_memory(backend, case.config, keys, values, case.batch, seed=1)
    p = backend.primitives
    rows, wanted = (p.asarray(array, state.keys) for array in (queries, targets))
    found = {"query": median_ms(lambda: p.peek(backend.query(case.config, state, rows).values, wait=True), seconds)}
    if backend.name == "torch" and p.eager(state.keys):
        found["certain"] = _certain(case, backend, state, rows)
    step = _step(case, backend, state, rows, wanted)
    peak = peak_extra_mb(step)
    if peak is not None:
        found["peak"] = peak
    found["step"] = median_ms(step, seconds)
    if on_cuda():
        found["graph"] = median_ms(as_graph(_module_step(case, state, rows, wanted)), seconds)
    elif backend.name == "torch" and case.slots <= SMALL:
        state = full_memory(backend, case.config, keys, values, case.batch, seed=1)
        found["compiled"] = median_ms(_compiled_step(case, state, rows, wanted), seconds)
    if importlib.util.find_spec("torch") is None:
        return found | {"limit": max(median_ms(lambda: queries @ keys.T, seconds), median_ms(keys.max, seconds))}
    from raremem.benchmarks.cost import plain_torch

    return found | plain_torch.measure(case.neighbors, keys, values, queries, targets, seconds)


def _step(case: Case, backend: raremem.Backend, state: Any, rows: Any, wanted: Any) -> Callable[[], object]:
    """A step of training as a user of that framework writes it; NumPy has no gradient."""
    config, held = case.config, [state]
    if backend.name == "torch":
        rows.requires_grad_()

        def step() -> None:
            out = backend.query(config, held[0], rows, wanted)
            assert out.loss is not None
            out.loss.mean().backward()
            held[0], _ = backend.update(config, held[0], out.queries, wanted, lookup=out)

    elif backend.name == "jax":
        import jax

        from raremem.adapters import jax as memory

        def loss(rows: Any, state: Any) -> Any:
            out = memory.query(config, state, rows, wanted)
            assert out.loss is not None
            return out.loss.mean(), out

        def whole(state: Any, rows: Any) -> Any:
            (_, out), gradient = jax.value_and_grad(loss, has_aux=True)(rows, state)
            return memory.update(config, state, out.queries, wanted, lookup=out)[0], gradient

        compiled = jax.jit(whole, donate_argnums=0)

        def step() -> None:
            held[0], gradient = compiled(held[0], rows)
            jax.block_until_ready((held[0], gradient))  # type: ignore[no-untyped-call]

    else:

        def step() -> None:
            out = backend.query(config, held[0], rows, wanted)
            held[0], _ = backend.update(config, held[0], rows, wanted, lookup=out)

    return step


def _module_step(case: Case, state: Any, rows: Any, wanted: Any) -> Callable[[], object]:
    """The same step, of a module: all that it changes stays where it is."""
    memory = _module(case, state)

    def step() -> None:
        out = memory(rows, wanted)
        out.loss.mean().backward()
        memory.update(out)

    return step


def _compiled_step(case: Case, state: Any, rows: Any, wanted: Any) -> Callable[[], object]:
    """The same, query, loss and update compiled as one function."""
    import torch

    memory = _module(case, state)

    def ask_and_write() -> Any:
        out = memory(rows, wanted)
        return out.loss.mean(), memory.update(out)

    torch.compiler.reset()  # a code object is compiled a few times only
    compiled = torch.compile(ask_and_write, fullgraph=True)
    return lambda: compiled()[0].backward()


def _module(case: Case, state: Any) -> Any:
    """A module with that memory."""
    from raremem.adapters.torch import Memory

    memory = Memory(case.config)
    memory.keys, memory.values, memory.last_used, memory.hits, memory.step = state
    return memory


def as_graph(step: Callable[[], object]) -> Callable[[], object]:
    """What replays a step as one CUDA graph, so that its operations are not called one by one."""
    import torch

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _certain(case: Case, backend: Any, state: Any, rows: Any) -> float:
    """The share of queries, in %, whose first short list is proven to hold the k nearest; 100 where all keys are scored."""
    p, blocks = backend.primitives, search.shortlist(case.config.k)
    width, _ = search.width_and_rows(case.slots, blocks, rows.shape)
    if width == 1:
        return 100.0
    coarse = search.coarse_scan(p, state, rows, width)
    _, certain = search.of_best_blocks(p, state, rows, coarse, blocks, case.config.k)
    return 100 * float(certain.float().mean())


def faiss_ms(cases: list[Case], seconds: float) -> list[float] | None:
    """Milliseconds of faiss's exact search alone, in a process of its own; None if faiss is not installed."""
    if importlib.util.find_spec("faiss") is None:
        return None
    asked = json.dumps([asdict(case) for case in cases])
    command = [sys.executable, "-m", "raremem.benchmarks.cost.faiss_search", str(seconds), asked]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def run(setting: Setting) -> Outcome:
    """Measure every size, for about `setting.minutes` in all.

    Raises:
        MissingPackageError: the framework is not installed.
    """
    backend = raremem.get_backend(setting.backend)
    seconds = 60 * setting.minutes / len(CASES) / 6
    measured = [measure(case, backend, seconds) for case in progress(CASES, f"speed on {setting.backend}")]
    if not on_cuda():
        for found, taken in zip(measured, faiss_ms(CASES, seconds) or [], strict=False):
            found["faiss"] = taken
    return outcome(measured)


def outcome(measured: list[dict[str, float]]) -> Outcome:
    """The table, the ratios, and the plot of cost against slots."""
    table = [
        [
            "slots x batch x dim x k",
            "step ms",
            "compiled ms",
            "CUDA graph ms",
            "query ms",
            "limit ms",
            "plain torch ms",
            "plain CUDA graph ms",
            "faiss search ms",
            "certain %",
            "extra MB",
        ]
    ]
    headline: dict[str, float] = {}
    for case, found in zip(CASES, measured, strict=True):
        name = f"{case.slots:,} x {case.batch} x {case.key_dim} x {case.neighbors}"
        names = ("step", "compiled", "graph", "query", "limit", "plain", "plain graph", "faiss", "certain", "peak")
        table.append([name, *(f"{found[column]:.1f}" if column in found else "not run" for column in names)])
        headline |= {
            f"{name}: {step} / {title}": found[ours] / found[peer]
            for ours, step in (("step", "step"), ("compiled", "compiled step"), ("graph", "step as a CUDA graph"))
            for peer, title in (("plain", "plain torch step"), ("faiss", "faiss search"), ("plain graph", "plain CUDA graph"))
            if ours in found and peer in found
        }
    return Outcome(
        headline=headline,
        figures={"cases": [{**asdict(case), **found} for case, found in zip(CASES, measured, strict=True)]},
        tables={"Milliseconds, medians": table},
        plots=lambda: [_plot(measured)],
        notes=[
            "A step is query, loss with its gradient, and update; the plain torch step does the same by a matrix product, topk "
            "and index writes. Compiled: query, loss and update as one compiled function. The limit is the longer of the bare "
            "product in f32 and of reading the keys once. Certain: the share of queries whose first short list was proven to "
            "hold the k nearest. Extra MB: by how much the process grows during three steps, at most."
        ],
    )


def _plot(measured: list[dict[str, float]]) -> Figure:
    from matplotlib.figure import Figure

    lines = {"step": "raremem, step", "plain": "plain torch, step", "faiss": "faiss, search", "limit": "limit"}
    key_dim, neighbors = KEY_DIMS[-1], NEIGHBORS[1]
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, batch in zip(figure.subplots(1, len(BATCHES), sharey=True), BATCHES, strict=True):
        for name, title in lines.items():
            points = [
                (case.slots, found[name])
                for case, found in zip(CASES, measured, strict=True)
                if (case.batch, case.key_dim, case.neighbors) == (batch, key_dim, neighbors) and name in found
            ]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", label=title)
        axes.set(
            xscale="log", yscale="log", xlabel="slots", title=f"batch {batch}, {key_dim} dimensions, {neighbors} neighbors"
        )
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("milliseconds")
    if figure.axes[0].lines:
        figure.axes[0].legend(loc="lower right")
    return figure
