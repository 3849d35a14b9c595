"""Planted faults: each is one wrong line in the algorithm or in a table of primitives, and some law must catch it.

A fault is a text that stands exactly once in a module, and the wrong text to put there. That keeps the list readable as what it
is, a list of mistakes, and a fault whose line is no longer there is an error and not a pass.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from raremem.backend import Backend
from raremem.reference.laws import LAWS, run


@dataclass(frozen=True)
class Fault:
    """A mistake: in which module, which text, and what stands there instead. `backend` is the one that shows it, and how."""

    name: str
    module: str
    right: str
    wrong: str
    backend: str = "numpy"
    compiled: bool = False


_ALGORITHM, _SCAN, _SEARCH, _NOISE = "raremem.algorithm", "raremem.scan", "raremem.search", "raremem.noise"

FAULTS = (
    Fault("rows are normalised by their sum", _ALGORITHM, "unit = rows / xp.sqrt(xp.sum(rows * rows, axis=1))",
          "unit = rows / xp.sum(xp.abs(rows), axis=1)"),
    Fault("no scaling before squares", _ALGORITHM, "rows = rows / p.power_of_two(largest)[:, None]\n", "pass\n"),
    Fault("a row of nothing is a query", _ALGORITHM, "(largest >= SMALLEST_NORM) & ", ""),
    Fault("rejected rows are not counted", _ALGORITHM, "rejected=mask & ~sound", "rejected=mask & ~mask"),
    Fault("masked rows are counted as rejected", _ALGORITHM, "rejected=mask & ~sound", "rejected=~sound"),
    Fault("the mask is ignored in a query", _ALGORITHM, "accepted = sound & mask", "accepted = sound"),
    Fault("the loss has no fallback positive", _ALGORITHM, "xp.where(target_slot != NO_SLOT, scores[:, config.k :], 0.0)[:, 0]",
          "xp.where(xp.any(values == targets[:, None], axis=1)[:, None], scores[:, config.k :], 0.0)[:, 0]"),
    Fault("an unknown target has similarity -1", _ALGORITHM, "scores[:, config.k :], 0.0)", "scores[:, config.k :], -1.0)"),
    Fault("the margin is subtracted", _ALGORITHM, "- positive + config.margin", "- positive - config.margin"),
    Fault("the loss is not a hinge", _ALGORITHM, "p.constant(hinge) > 0", "p.constant(hinge) == hinge"),
    Fault("an absent neighbor is a negative", _ALGORITHM, "(values != NO_SLOT) & (values != targets[:, None])",
          "(values != targets[:, None])"),
    Fault("the likelihood has no fallback positive", _ALGORITHM, "right = xp.where(alone, xp.exp(best - highest), right)",
          "right = xp.where(alone, 1e-6, right)"),
    Fault("the fallback positive is not among everyone", _ALGORITHM, "+ xp.where(alone, xp.exp(best - top), 0.0)", ""),
    Fault("absent neighbors in the likelihood", _ALGORITHM, "powers = _powers(p, logits, top[:, None], is_positive | is_negative)",
          "powers = xp.exp(logits - top[:, None])"),
    Fault("a likelihood that vanishes", _ALGORITHM, "highest = p.constant(logits)[:, 0], p.constant(best)",
          "highest = p.constant(logits)[:, 0], p.constant(logits)[:, 0]"),
    Fault("no gradient to the right neighbors", _ALGORITHM, "_powers(p, logits, highest[:, None], is_positive)",
          "_powers(p, p.constant(logits), highest[:, None], is_positive)", "torch"),
    Fault("exp overflows behind a mask", _ALGORITHM, "p.xp.exp(p.xp.where(present, logits - top, 0.0))", "p.xp.exp(logits - top)",
          "torch"),
    Fault("the temperature is left out", _ALGORITHM, "_softmax(p, config.softmax_temperature * similarities", "_softmax(p, similarities"),
    Fault("weights of absent neighbors", _ALGORITHM, "powers = _powers(p, logits, top, present)", "powers = xp.exp(logits - top)"),
    Fault("no gradient to the query", _ALGORITHM, "_similarities(p, state, unit, candidates)",
          "_similarities(p, state, constant, candidates)", "torch"),
    Fault("the gradient skips the normalisation", _ALGORITHM, "/ xp.sqrt(xp.sum(rows * rows, axis=1))[:, None]",
          "/ p.constant(xp.sqrt(xp.sum(rows * rows, axis=1)))[:, None]", "torch"),
    Fault("mean instead of sum", _ALGORITHM, "total = old + sums", "total = old + sums / counts[:, None]"),
    Fault("the key is replaced by the queries", _ALGORITHM, "total = old + sums", "total = sums"),
    Fault("keys are not normalised again", _ALGORITHM, "total / xp.where(sound, norm, 1.0)[:, None], old)", "total, old)"),
    Fault("only the first hit counts", _ALGORITHM, "return p.sums(together, unit), counts",
          "return unit[p.cast(xp.argmax(together, axis=1), \"int32\")], counts"),
    Fault("a cancelled key is divided by zero", _ALGORITHM, "sound = norm >= SMALLEST_SUM", "sound = norm >= -1.0"),
    Fault("any value is a hit", _ALGORITHM, "& (found.values[:, 0] == targets)", ""),
    Fault("a slot just hit is evicted", _ALGORITHM, "slot * 0 + TAKEN_PRIORITY)", "slot * 0 + EMPTY_PRIORITY - 1)"),
    Fault("filled slots go before empty ones", _ALGORITHM, "NO_SLOT, EMPTY_PRIORITY, priority)",
          "NO_SLOT, 0, priority)"),
    Fault("rows beyond the slots overwrite the first", _ALGORITHM, "placed = miss & (rank < free.shape[0]) & usable[rank_in_reach]",
          "placed = miss"),
    Fault("duplicates share a slot", _ALGORITHM, "p.cast(xp.cumsum(p.cast(miss, \"int32\"), axis=0), \"int32\") - 1",
          "p.cast(miss, \"int32\") - 1"),
    Fault("evictions count empty slots", _ALGORITHM, "_count(p, placed & filled[rank_in_reach])", "_count(p, placed)"),
    Fault("old ages overflow with their noise", _ALGORITHM, "priority = p.xp.where((ages >= 0) & (ages < oldest), ages, oldest)",
          "priority = ages"),
    Fault("hits are not counted", _ALGORITHM, "hits=_content(p, state.hits, turns, hits)", "hits=state.hits[turns.slots]"),
    Fault("hits of a batch count once", _ALGORITHM, "hits = state.hits[own] + counts", "hits = state.hits[own] + 1"),
    Fault("hits without end", _ALGORITHM, "xp.where(hits < MAX_HITS, hits, MAX_HITS)", "hits"),
    Fault("hits outlive their slot", _ALGORITHM, "xp.where(hit, hits, 0))", "xp.where(hit, hits, 1))"),
    Fault("those hit most go first", _ALGORITHM, "(MAX_HITS - some(state.hits))", "some(state.hits)"),
    Fault("age before hits", _ALGORITHM, "(MAX_HITS - some(state.hits)) * AGES_BESIDE_HITS", "(MAX_HITS - some(state.hits))"),
    Fault("ages run over into hits", _ALGORITHM, "AGES_BESIDE_HITS - 2 - 2 * config.age_noise if by_hits", "AGES_BESIDE_HITS if by_hits"),
    Fault("age off by one", _ALGORITHM, "slot * 0 + step)", "slot * 0 + state.step)"),
    Fault("time passes when nothing is written", _ALGORITHM, "state.step + p.cast(~turns.nobody, \"int32\")", "state.step + 1",
          "jax"),
    Fault("the value is not written", _ALGORITHM, "_content(p, state.values, turns, values)", "state.values[turns.slots]"),
    Fault("nobody writes, slot 0 is written", _ALGORITHM, "p.xp.where(turns.nobody, array[:1], content[turns.rows])",
          "content[turns.rows]", "jax"),
    Fault("the mask is ignored in an update", _ALGORITHM, "found.accepted & in_range & mask", "(found.accepted | ~mask) & in_range"),
    Fault("noise of the next step", _NOISE, "hashed ^ step", "hashed ^ (step + 1)"),
    Fault("noise without the seed", _NOISE, "config.seed * 0x7FEB352D + ", ""),
    Fault("noise of half the width", _NOISE, "% (2 * config.age_noise + 1) - config.age_noise", "% (config.age_noise + 1)"),
    Fault("the shift repeats the sign", _NOISE, "(bits >> count) & ((1 << (32 - count)) - 1)", "bits >> count"),
    Fault("empty slots are found", _SCAN, "(values != NO_SLOT) & (ids >= first)", "(ids >= first)"),
    Fault("slots in two chunks are found twice", _SCAN, "(values != NO_SLOT) & (ids >= first)", "(values != NO_SLOT)"),
    Fault("slots counted from the chunk", _SCAN, "    slots = slots + start\n", ""),
    Fault("blocks that are not in the order of their rows", _SCAN, "p.ascending(p.top_k(maxima, k)[1])",
          "(p.ascending if before else lambda blocks: blocks)(p.top_k(maxima, k)[1])"),
    Fault("blocks that are not in the order of their rows, in later chunks", _SCAN, "p.ascending(p.top_k(maxima, k)[1])",
          "(p.ascending if not before else lambda blocks: blocks)(p.top_k(maxima, k)[1])"),
    Fault("what was found before is forgotten", _SCAN, "zip(before, (scores, slots), strict=True)", "zip((scores, slots), (scores, slots))"),
    Fault("a block left out is the first", _SCAN, "p.xp.where(rows >= 0, found, lowest), rows", "found, p.xp.where(rows >= 0, rows, 0)"),
    Fault("rows of one group of the batch answer for all", _SCAN, "row[:rows] + start", "row[:rows]", "jax", True),
    Fault("blocks by their minimum", _SCAN, "p.xp.amax(scores.reshape", "p.xp.amin(scores.reshape"),
    Fault("a stale read: the last write is not seen", _SCAN, "p.xp.where((values != NO_SLOT)",
          "p.xp.where((p.slice_rows(state.last_used, start, size) != state.step) & (values != NO_SLOT)"),
    Fault("slots after the last whole block are left out", _SEARCH, "_and_rest(p, ids, whole, slots)", "ids"),
    Fault("a short list that is not proven", _SEARCH, "[:, -1] > others[some]", "[:, -1] > others[some] - 3.0"),
    Fault("equals after the end of a short list are left out", _SEARCH, "> others[some]", ">= others[some]"),
    Fault("blocks of neighboring slots", _SEARCH, "first = start + blocks % (self.size // self.width)", "first = start"),
    Fault("the target's best slot is the last neighbor with it", _SEARCH, 'p.cast(right, "int32").argmax(1)', 'p.cast(right, "int32").cumsum(1).argmax(1)'),
    Fault("the target is sought among the neighbors alone", _SEARCH, "    if len(asking):\n        best[asking]", "    if False:\n        best[asking]"),
    Fault("slots that noise may bring forward are left out", _ALGORITHM, "- 2 * config.age_noise, TAKEN_PRIORITY)", "+ 1, TAKEN_PRIORITY)"),
    Fault("under the likelihood the weights have no temperature", _ALGORITHM, "_softmax(p, config.softmax_temperature * similarities",
          '_softmax(p, (1.0 if config.loss == "nll" else config.softmax_temperature) * similarities'),
    Fault("without targets there are no values", _ALGORITHM, "values = xp.where(present, state.values[slots], NO_SLOT)",
          "values = xp.where(present & (targets is not None), state.values[slots], NO_SLOT)"),
    Fault("strict lets bad rows pass", "raremem.validation", "    if rejected.any():\n", "    if False:\n"),
    Fault("rows stay in half precision", _ALGORITHM, 'rows = p.cast(queries, "float32")\n', "rows = queries\n"),
    Fault("a memory forgets its ages when the step wraps", "raremem.state",
          "(np.int64(step) - last_used.astype(np.int64)) % STEP_PERIOD", "np.abs(np.int64(step) - last_used.astype(np.int64))"),
    Fault("noise of a step that has wrapped", _NOISE, "hashed ^ step", "hashed ^ p.xp.abs(step)"),
    Fault("of many neighbors the last have no weight", _ALGORITHM, "powers = _powers(p, logits, top, present)",
          "powers = _powers(p, logits, top, present & (p.arange(logits.shape[1], present) < 8)[None, :])"),
    Fault("of a large batch the last row is lost", _ALGORITHM, "accepted = found.accepted & in_range & mask",
          "accepted = found.accepted & in_range & mask & (p.arange(mask.shape[0], mask) < 11)"),
    Fault("a copy is the same memory", "raremem.adapters.numpy", "    def copy(self, array: Array) -> Array:\n        return np.array(array)",
          "    def copy(self, array: Array) -> Array:\n        return array"),
    Fault("a query writes to the memory", _ALGORITHM, "    constant = p.constant(unit)\n",
          "    constant = p.constant(unit)\n    state.keys[0] += constant[0]\n"),
    Fault("ties to the highest slot, compiled only", "raremem.adapters.jax", "best, columns = jax.lax.top_k(_one_zero(scores), k)\n",
          "turn = -1 if _traced(scores) else 1\n        best, columns = jax.lax.top_k(_one_zero(scores)[:, ::turn], k)\n"
          "        columns = scores.shape[1] - 1 - columns if turn < 0 else columns\n", "jax", True),
    Fault("ties to the highest slot", "raremem.adapters.numpy", "| (ties.astype(np.int64) & 0xFFFFFFFF)",
          "| (~ties.astype(np.int64) & 0xFFFFFFFF)"),
    Fault("ties in no order", "raremem.adapters.torch",
          "best = ranks.to(torch.int32) ^ MAX_INT32",
          "best = torch.topk(scores, k, dim=1).indices.to(torch.int32)", "torch"),
    Fault("a mapped call is taken for an eager one", "raremem.adapters.torch",
          "not torch.compiler.is_compiling() and not _batched(array)", "not torch.compiler.is_compiling()", "torch"),
)  # fmt: skip


@contextlib.contextmanager
def planted(fault: Fault) -> Iterator[Backend]:
    """A backend made while the fault stands in the code; afterwards the code is as it was."""
    adapter = importlib.import_module(f"raremem.adapters.{fault.backend}")
    module = importlib.import_module(fault.module)
    source = inspect.getsource(module)
    if source.count(fault.right) != 1:
        raise LookupError(f"fault {fault.name!r}: {fault.right!r} stands {source.count(fault.right)} times in {fault.module}.")
    mutant = ModuleType(fault.module)
    mutant.__file__ = module.__file__
    sys.modules[fault.module] = mutant
    try:
        exec(compile(source.replace(fault.right, fault.wrong), str(module.__file__), "exec"), mutant.__dict__)
    finally:
        sys.modules[fault.module] = module
    with _replaced(module, mutant):
        yield type(adapter.backend)(type(adapter.backend.primitives)(), compiled=fault.compiled)


@contextlib.contextmanager
def _replaced(old: ModuleType, new: ModuleType) -> Iterator[None]:
    """Wherever a loaded module of raremem holds something that `old` defines, let it hold what `new` does."""
    changed = []
    for module in [module for name, module in sys.modules.items() if name.startswith("raremem")]:
        for name, value in list(vars(module).items()):
            ours = value is old or getattr(value, "__module__", None) == old.__name__ or module is old
            replacement = new if value is old else vars(new).get(name)
            if ours and replacement is not None and replacement is not value and not name.startswith("__"):
                changed.append((module, name, value))
                setattr(module, name, replacement)
    try:
        yield
    finally:
        for module, name, value in changed:
            setattr(module, name, value)


def caught_by(fault: Fault, examples: int = 30) -> Iterator[str]:
    """The laws that do not hold while the fault stands, as they are found."""
    with planted(fault) as backend:
        for name in LAWS:
            if not _holds(name, backend, examples):
                yield name


def _holds(name: str, backend: Backend, examples: int) -> bool:
    law = LAWS[name]
    if not law.runs_on(backend):
        return True
    try:
        run(law, backend, examples, shrink=False)
    except Exception:
        return False
    return True


def table() -> str:
    """As markdown: the laws that each fault breaks, and the laws that no fault breaks."""
    caught = {fault.name: list(caught_by(fault)) for fault in FAULTS}
    idle = sorted(set(LAWS) - {law for laws in caught.values() for law in laws})
    rows = [f"| {name} | {', '.join(laws) or '**not caught**'} |" for name, laws in caught.items()]
    return "\n".join([
        "# Planted faults, and the laws that catch them\n",
        f"Written by `python -m raremem.reference.faults`: {len(FAULTS)} faults, {len(LAWS)} laws.",
        f"Laws that catch none: {', '.join(idle) or 'none'}.\n",
        "| fault | laws that it breaks |",
        "| --- | --- |",
        *rows,
    ])  # fmt: skip


if __name__ == "__main__":
    print(table())
