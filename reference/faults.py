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
from types import CodeType, ModuleType

from raremem.backend import Backend
from raremem.reference.laws import LAWS, Law, run


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
_BACKEND, _CONFIG = "raremem.backend", "raremem.config"

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
    Fault("any value is a hit", _ALGORITHM, "& (found.values[:, 0] == targets) & still", ""),
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
    Fault("noise of the next step", _NOISE, "p.bits_xor(hashed, step)", "p.bits_xor(hashed, step + 1)"),
    Fault("noise without the seed", _NOISE, "config.seed * 0x7FEB352D + ", ""),
    Fault("noise of half the width", _NOISE, "% (2 * config.age_noise + 1) - config.age_noise", "% (config.age_noise + 1)"),
    Fault("the shift repeats the sign", _NOISE, "return p.bits_xor(bits, p.shift_right(bits, 16))", "return p.bits_xor(bits, bits >> 16)"),
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
    Fault("slots stand twice in a list", _SEARCH, "rows.reshape(-1, width * k), width * stride, count)", "rows.reshape(-1, width * k), stride, count)"),
    Fault("a row of -1 is taken for none", _SEARCH, "xp.where(~among & xp.any(queries != 0, axis=1))[0]",
          "xp.where(~among & xp.any(queries != -1, axis=1))[0]"),
    Fault("noise of any width is taken", _CONFIG, '("age_noise", 0, 2**20)', '("age_noise", 0, 2**30)'),
    Fault("keys of any length are taken", "raremem.state", "np.abs(norms - 1) <= 1e-3", "np.abs(norms - 1) <= 1.0"),
    Fault("of a smaller memory those to go first stay", "raremem.state", "first_to_go[config.slots - slots :]", "first_to_go[:slots]"),
    Fault("rows stay in half precision", _ALGORITHM, 'rows = p.cast(queries, "float32")\n', "rows = queries\n"),
    Fault("a memory forgets its ages when the step wraps", "raremem.state",
          "(np.int64(step) - last_used.astype(np.int64)) % STEP_PERIOD", "np.abs(np.int64(step) - last_used.astype(np.int64))"),
    Fault("noise of a step that has wrapped", _NOISE, "p.bits_xor(hashed, step)", "p.bits_xor(hashed, p.xp.abs(step))"),
    Fault("of many neighbors the last have no weight", _ALGORITHM, "powers = _powers(p, logits, top, present)",
          "powers = _powers(p, logits, top, present & (p.arange(logits.shape[1], present) < 8)[None, :])"),
    Fault("of a large batch the last row is lost", _ALGORITHM, "accepted = found.accepted & in_range & mask",
          "accepted = found.accepted & in_range & mask & (p.arange(mask.shape[0], mask) < 11)"),
    Fault("a copy is the same memory", "raremem.adapters.numpy", "    def copy(self, array: Array) -> Array:\n        return np.array(array)",
          "    def copy(self, array: Array) -> Array:\n        return array"),
    Fault("a query writes to the memory", _ALGORITHM, "    constant = p.constant(unit)\n",
          "    constant = p.constant(unit)\n    state.keys[0] += constant[0]\n"),
    Fault("ties to the highest slot, compiled only", "raremem.adapters.jax", "best, columns = jax.lax.top_k(_one_zero(scores), k)\n",
          "turn = -1 if traced(scores) else 1\n        best, columns = jax.lax.top_k(_one_zero(scores)[:, ::turn], k)\n"
          "        columns = scores.shape[1] - 1 - columns if turn < 0 else columns\n", "jax", True),
    Fault("ties to the highest slot", "raremem.adapters.numpy", "| (ties.astype(np.int64) & 0xFFFFFFFF)",
          "| (~ties.astype(np.int64) & 0xFFFFFFFF)"),
    Fault("ties in no order", "raremem.adapters.torch",
          "best = ranks.to(torch.int32) ^ MAX_INT32",
          "best = torch.topk(scores, k, dim=1).indices.to(torch.int32)", "torch"),
    Fault("a mapped call is taken for an eager one", "raremem.adapters.torch",
          'array.device.type == "cpu" and torch_modes.seen(array)', 'array.device.type == "cpu" and not torch_modes.traced()', "torch"),
    # Of memories that live.
    Fault("init gives the memory that it gave before", _BACKEND, "        return self.from_numpy(config, empty_portable(config))",
          "        return vars(self).setdefault(str(config), self.from_numpy(config, empty_portable(config)))"),
    Fault("a query is answered from memory", _BACKEND, "        found = self._query(config, state, queries, targets, mask)\n",
          "        found = vars(self).setdefault(f'{id(state.keys)} {queries} {targets} {mask}',"
          " self._query(config, state, queries, targets, mask))\n", "torch"),
    Fault("without a mask the first row does not count", _BACKEND, "mask = rows == rows if mask is None",
          "mask = rows > 0 if mask is None"),
    Fault("strict looks at masked rows", _BACKEND, "rejected = mask & ~algorithm.sound_rows", "rejected = ~algorithm.sound_rows"),
    Fault("after many updates nothing more is written", _BACKEND,
          "state, report = self._update(config, state, queries, targets, mask, lookup)",
          "state, report = self._update(config, state, queries, targets, mask & (lineage_of(keys).updates < 150), lookup)"),
    Fault("targets of 8 bits have a sign", _BACKEND, 'targets = p.cast(targets, "int32")',
          'targets = p.cast(p.cast(targets, "int8") if dtype_name(targets) == "uint8" else targets, "int32")'),
    Fault("targets of 64 bits are cut to 16", _BACKEND, '            if dtype_name(targets) != "int64":',
          '            if dtype_name(targets) == "int64":\n                targets = targets & 0xFFFF\n            else:'),
    Fault("what a lookup left out is written once it is late", _BACKEND, "None, mask & lookup.accepted)", "None, mask)"),
    Fault("what a late lookup rejected is not counted", _BACKEND, "queries=lookup.queries, rejected=lookup.rejected)", "queries=lookup.queries)"),
    Fault("the targets of the lookup are written", _BACKEND, "    return write(config, state, found, targets, mask)",
          "    return write(config, state, found, targets if found.targets is None else found.targets, mask)"),
    Fault("what was given is kept", _BACKEND, "        queries = p.asarray(queries, state.keys)\n",
          "        queries = p.asarray(queries, state.keys)\n        vars(self).setdefault('kept', []).append(queries)\n"),
    Fault("a lookup is used however late", "raremem.provenance", "    if (made_at[accepted] != now).any():\n        return False\n",
          "    return True\n"),
    Fault("a lookup of another memory is taken", "raremem.provenance", "(known and own is not of) or ", ""),
    Fault("a copy of a lookup of another memory is taken for a late one", "raremem.provenance", "    if known:\n        return False\n",
          "    return False\n"),
    Fault("a lookup's step is that of the update to come", _ALGORITHM, "step=xp.where(accepted, state.step, 0),",
          "step=xp.where(accepted, state.step + 1, 0),"),
    Fault("values of three bytes", _ALGORITHM, 'targets = p.cast(xp.where(in_range, targets, 0), "int32")',
          'targets = p.cast(xp.where(in_range, targets, 0), "int32") % 2**24'),
    Fault("values are compared as f32", _ALGORITHM, "is_negative = (values != NO_SLOT) & (values != targets[:, None])",
          'is_negative = (values != NO_SLOT) & (p.cast(values, "float32") != p.cast(targets, "float32")[:, None])'),
    Fault("rows of f64 go through f16", _ALGORITHM, 'rows = p.cast(queries, "float32")\n',
          'rows = p.cast(p.cast(queries, "float16") if "64" in str(queries.dtype) else queries, "float32")\n'),
    Fault("rows are scaled where they lie", _ALGORITHM, 'rows = p.cast(queries, "float32")\n',
          'rows = p.cast(queries, "float32")\n    rows *= 2\n'),
    Fault("targets are handed out as they were given", _ALGORITHM, 'targets = p.cast(xp.where(accepted, targets, 0), "int32")',
          'targets = p.cast(targets if accepted.all() else xp.where(accepted, targets, 0), "int32")'),
    Fault("slots of reports share their memory", _ALGORITHM, "slots, written = p.xp.full_like(batch.slot, NO_SLOT), p.xp.full_like(batch.hit, False)",
          "slots = vars(_store_some).setdefault(str(len(batch.slot)), p.xp.full_like(batch.slot, NO_SLOT))\n"
          "    slots[:] = NO_SLOT\n    written = p.xp.full_like(batch.hit, False)"),
    Fault("slots of reports in 64 bits", _ALGORITHM, "        slots=slot,\n", '        slots=p.cast(slot, "int64"),\n'),
    Fault("similarities in f64", _ALGORITHM, "        similarities=similarities,\n", '        similarities=p.cast(similarities, "float64"),\n'),
    Fault("the global random generator is used", _ALGORITHM, "    constant = p.constant(unit)\n",
          "    constant = p.constant(unit)\n    __import__('random').random()\n"),
    Fault("NumPy's global random generator is used", _ALGORITHM, "    constant = p.constant(unit)\n",
          "    constant = p.constant(unit)\n    __import__('numpy').random.rand()\n"),
    Fault("PyTorch's global random generator is used", _ALGORITHM, "    constant = p.constant(unit)\n",
          "    constant = p.constant(unit)\n    __import__('torch').rand(1)\n", "torch"),
    Fault("a single neighbor that is far is not found", _ALGORITHM, "present = accepted[:, None] & (p.take_along(ranked, order) > NOTHING)",
          "present = accepted[:, None] & (p.take_along(ranked, order) > (-0.25 if config.k < min(2, config.slots) else NOTHING))"),
    Fault("noise where none is asked for", _NOISE, "% (2 * config.age_noise + 1) - config.age_noise",
          "% (2 * max(config.age_noise, 1) + 1) - max(config.age_noise, 1)"),
    Fault("of many dimensions the last do not count", "raremem.adapters.numpy", "np.matmul(keys, queries[:, :, None])[:, :, 0]",
          "np.matmul(keys[:, :, :16], queries[:, :16, None])[:, :, 0]"),
    Fault("rows beyond the twentieth are lost", _ALGORITHM, "accepted = found.accepted & in_range & mask",
          "accepted = found.accepted & in_range & mask & (p.arange(mask.shape[0], mask) < 20)"),
    Fault("one row sees the first 200 slots", _SEARCH, "    coarse, blocks = coarse_scan(",
          "    if len(queries) == 1:\n        first = p.arange(len(state.values), queries) < 200\n"
          "        state = state._replace(values=p.xp.where(first, state.values, NO_SLOT))\n    coarse, blocks = coarse_scan("),
    Fault("slots to evict are counted from the chunk", _ALGORITHM, "found.append((places + start, priority[places]))",
          "found.append((places, priority[places]))"),
    Fault("columns are read as rows", "raremem.adapters.numpy", "    def asarray(self, array: Any, like: Array) -> Array:\n        return np.asarray(array)",
          '    def asarray(self, array: Any, like: Array) -> Array:\n        return np.asarray(array).ravel("K").reshape(np.shape(array))'),
    Fault("a step between is left out", "raremem.adapters.numpy", "    def asarray(self, array: Any, like: Array) -> Array:\n        return np.asarray(array)",
          "    def asarray(self, array: Any, like: Array) -> Array:\n"
          "        return np.asarray(array) if array.base is None else np.asarray(array.base).ravel()[: array.size].reshape(array.shape)"),
    Fault("PyTorch's own masks are turned round", "raremem.adapters.torch", "        if array.device != like.device:",
          "        if array.dtype == torch.bool and not torch_modes.wrapped(array):\n            array = ~array\n        if array.device != like.device:", "torch"),
    Fault("rows of bf16 go through f16", "raremem.adapters.torch", "        return array.to(getattr(torch, dtype))",
          "        return (array.half() if array.dtype == torch.bfloat16 else array).to(getattr(torch, dtype))", "torch"),
    Fault("one mask for all memories", "raremem.adapters.torch", "*map(torch.as_tensor, (queries, targets, mask)))",
          "*map(torch.as_tensor, (queries, targets, mask[:1].repeat(len(mask), 0))))", "torch"),
    Fault("what is recalled is a mean of all places", "raremem.state", "embedding[values]).sum(1)", "embedding[values]).mean(1)"),
    Fault("what is recalled where nothing was found", "raremem.state", "return (weights[:, :, None]", "return ((weights + (weights == 0))[:, :, None]"),
    Fault("no gradient to similarities", _ALGORITHM, "        similarities=similarities,\n", "        similarities=p.constant(similarities),\n", "torch"),
    Fault("no gradient to weights", _ALGORITHM, "weights=_softmax(p, config.softmax_temperature * similarities, present)",
          "weights=_softmax(p, p.constant(config.softmax_temperature * similarities), present)", "torch"),
    Fault("no gradient through the sum of weights", _ALGORITHM, "powers / xp.where(present[:, :1], total, 1.0)",
          "powers / p.constant(xp.where(present[:, :1], total, 1.0))", "torch"),
    Fault("a gradient to the keys", _ALGORITHM, "keys, slots = p.constant(state.keys), ", "keys, slots = state.keys, ", "jax"),
    Fault("a gradient of keys as they are now", "raremem.adapters.torch", "return array.clone() if rows.requires_grad and torch.is_grad_enabled() else array",
          "return array", "torch"),
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
    with _replaced(module, mutant), _methods_replaced(module, mutant):
        yield type(adapter.backend)(type(adapter.backend.primitives)(), compiled=fault.compiled)


@contextlib.contextmanager
def _replaced(old: ModuleType, new: ModuleType) -> Iterator[None]:
    """Wherever a loaded module of raremem holds something that `old` defines, let it hold what `new` does."""
    changed = []
    for module in [module for name, module in sys.modules.items() if name.startswith("raremem")]:
        for name, value in list(vars(module).items()):
            stays = inspect.isclass(value) and old.__name__ in (_BACKEND, _CONFIG)
            ours = value is old or getattr(value, "__module__", None) == old.__name__ or module is old
            replacement = new if value is old else vars(new).get(name)
            if ours and not stays and replacement is not None and replacement is not value and not name.startswith("__"):
                changed.append((module, name, value))
                setattr(module, name, replacement)
    try:
        yield
    finally:
        for module, name, value in changed:
            setattr(module, name, value)


@contextlib.contextmanager
def _methods_replaced(old: ModuleType, new: ModuleType) -> Iterator[None]:
    """Classes that others are derived from stay; let them have those methods of `new` that are not as they were."""
    changed = []
    for name, value in vars(old).items():
        if not inspect.isclass(value) or value.__module__ != old.__name__:
            continue
        for method, function in list(vars(value).items()):
            other = vars(vars(new)[name]).get(method)
            if inspect.isfunction(function) and inspect.isfunction(other) and _differ(function.__code__, other.__code__):
                changed.append((value, method, function))
                setattr(value, method, other)
    try:
        yield
    finally:
        for value, method, function in changed:
            setattr(value, method, function)


def _differ(one: CodeType, other: CodeType) -> bool:
    """Whether two functions do something else, wherever they stand."""
    return (one.co_code, one.co_names, one.co_consts) != (other.co_code, other.co_names, other.co_consts)


def caught_by(fault: Fault, examples: int = 30) -> Iterator[str]:
    """The laws that do not hold while the fault stands, as they are found; slow ones are tried if no other has caught it."""
    with planted(fault) as backend:
        caught = False
        for law in sorted(LAWS.values(), key=_is_slow):
            if not (_is_slow(law) and caught) and not holds(law.name, backend, examples):
                caught = True
                yield law.name


def _is_slow(law: Law) -> bool:
    return law.costly or law.late


def holds(name: str, backend: Backend, examples: int = 30) -> bool:
    """Whether a law holds on a backend, or is none for it."""
    law = LAWS[name]
    if not law.runs_on(backend):
        return True
    try:
        run(law, backend, examples, shrink=False)
    except Exception:
        return False
    return True


def table() -> str:
    """As markdown: every fault, where it stands, and what it changes."""
    rows = [f"| {fault.name} | {fault.module.removeprefix('raremem.')} | {fault.backend} |" for fault in FAULTS]
    return "\n".join([
        "# Planted faults\n",
        f"Written by `python -m raremem.reference.faults`: {len(FAULTS)} faults, each a change of one text, and {len(LAWS)} laws.",
        "`tests/test_faults.py` plants each, sees that a law breaks, and sees that this page is current. Which law it is, say",
        "`list(raremem.reference.faults.caught_by(fault))`.\n",
        "| fault | in | seen with |",
        "| --- | --- | --- |",
        *rows,
    ])  # fmt: skip


if __name__ == "__main__":
    print(table())
