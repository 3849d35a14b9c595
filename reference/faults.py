"""Planted faults: each is one wrong line in the rules, in a search or in a table of primitives, and some law must catch it.

A fault is a text that stands exactly once in a module, and the wrong text to put there. That keeps the list readable as what it
is, a list of mistakes, and a fault whose line is no longer there is an error and not a pass.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType

from raremem.backend import Backend
from raremem.reference.later_faults import LATER
from raremem.reference.laws import LAWS, Law, run
from raremem.reference.mutation.players import PLAYERS


@dataclass(frozen=True)
class Fault:
    """A mistake: in which module, which text, and what stands there instead. `backend` is the one that shows it, or a player of
    the mutation campaign, and `compiled` says how."""

    name: str
    module: str
    right: str
    wrong: str
    backend: str = "numpy"
    compiled: bool = False


_BACKEND, _CONFIG, _RANKS = "raremem.backend", "raremem.config", "raremem.ranks"
_RULES = "query", "loss", "write", "turns", "eviction", "noise"
_QUERY, _LOSS, _WRITE, _TURNS, _EVICTION, _NOISE = (f"raremem.rules.{name}" for name in _RULES)
_SEARCH = "portable", "blocks", "coarse", "shortlist", "targets", "live", "shards"
_PORTABLE, _BLOCKS, _COARSE, _SHORTLIST, _TARGETS, _LIVE, _SHARDS = (f"raremem.search.{name}" for name in _SEARCH)
_NUMPY, _TORCH = "raremem.adapters.numpy", "raremem.adapters.torch.primitives"

FAULTS = (
    Fault("rows are normalised by their sum", _QUERY, "unit = rows / xp.sqrt(xp.sum(rows * rows, axis=1))",
          "unit = rows / xp.sum(xp.abs(rows), axis=1)"),
    Fault("no scaling before squares", _QUERY, "rows = rows / p.power_of_two(largest)[:, None]\n", "pass\n"),
    Fault("a row of nothing is a query", _QUERY, "(largest >= SMALLEST_NORM) & ", ""),
    Fault("rejected rows are not counted", _QUERY, "rejected=mask & ~sound", "rejected=mask & ~mask"),
    Fault("masked rows are counted as rejected", _QUERY, "rejected=mask & ~sound", "rejected=~sound"),
    Fault("the mask is ignored in a query", _QUERY, "accepted = sound & mask", "accepted = sound"),
    Fault("the loss has no fallback positive", _QUERY, "xp.where(target_slot[:, 0] != NO_SLOT, scores[:, k], 0.0)",
          "xp.where(xp.any(values == targets[:, None], axis=1), scores[:, k], 0.0)"),
    Fault("an unknown target has similarity -1", _QUERY, "scores[:, k], 0.0)", "scores[:, k], -1.0)"),
    Fault("the margin is subtracted", _LOSS, "- positive + config.margin", "- positive - config.margin"),
    Fault("the loss is not a hinge", _LOSS, "p.constant(hinge) > 0", "p.constant(hinge) == hinge"),
    Fault("an absent neighbor is a negative", _LOSS, "(values != NO_SLOT) & (values != targets[:, None])",
          "(values != targets[:, None])"),
    Fault("the likelihood has no fallback positive", _LOSS, "right = xp.where(alone, xp.exp(best - highest), right)",
          "right = xp.where(alone, 1e-6, right)"),
    Fault("the fallback positive is not among everyone", _LOSS, "+ xp.where(alone, xp.exp(best - top), 0.0)", ""),
    Fault("absent neighbors in the likelihood", _LOSS, "powers = _powers(p, logits, top[:, None], is_positive | is_negative)",
          "powers = xp.exp(logits - top[:, None])"),
    Fault("a likelihood that vanishes", _LOSS, "highest = p.constant(logits)[:, 0], p.constant(best)",
          "highest = p.constant(logits)[:, 0], p.constant(logits)[:, 0]"),
    Fault("no gradient to the right neighbors", _LOSS, "_powers(p, logits, highest[:, None], is_positive)",
          "_powers(p, p.constant(logits), highest[:, None], is_positive)", "torch"),
    Fault("exp overflows behind a mask", _LOSS, "p.xp.exp(p.xp.where(present, logits - top, 0.0))", "p.xp.exp(logits - top)",
          "torch"),
    Fault("the temperature is left out", _QUERY, "softmax(p, config.softmax_temperature * similarities", "softmax(p, similarities"),
    Fault("weights of absent neighbors", _LOSS, "powers = _powers(p, logits, top, present)", "powers = xp.exp(logits - top)"),
    Fault("no gradient to the query", _QUERY, "p.score_rows(unit, p.constant",
          "p.score_rows(constant, p.constant", "torch"),
    Fault("the gradient skips the normalisation", _QUERY, "/ xp.sqrt(xp.sum(rows * rows, axis=1))[:, None]",
          "/ p.constant(xp.sqrt(xp.sum(rows * rows, axis=1)))[:, None]", "torch"),
    Fault("mean instead of sum", _WRITE, "else (counts, first, p.inner(together, unit.T))",
          "else (counts, first, p.inner(together, unit.T) / counts[:, None])"),
    Fault("the key is replaced by the queries", _WRITE, "total = old + sums", "total = sums"),
    Fault("keys are not normalised again", _WRITE, "total / xp.where(sound, norm, 1.0)[:, None], old)", "total, old)"),
    Fault("only the first hit counts", _WRITE, "else (counts, first, p.inner(together, unit.T))",
          "else (counts, first, unit[first])"),
    Fault("a cancelled key is divided by zero", _WRITE, "sound = norm >= SMALLEST_SUM", "sound = norm >= -1.0"),
    Fault("any value is a hit", _WRITE, "& (found.values[:, 0] == targets) & still", ""),
    Fault("a slot just hit is evicted", _EVICTION, "p.xp.full_like(slot, TAKEN_PRIORITY)", "p.xp.full_like(slot, EMPTY_PRIORITY - 1)"),
    Fault("filled slots go before empty ones", _EVICTION, "NO_SLOT, EMPTY_PRIORITY, priority)",
          "NO_SLOT, 0, priority)"),
    Fault("rows beyond the slots overwrite the first", _WRITE, "placed = asks & (rank < free.shape[0]) & usable[rank_in_reach]",
          "placed = asks"),
    Fault("duplicates share a slot", _WRITE, "p.cast(xp.cumsum(p.cast(asks, \"int32\"), axis=0), \"int32\") - 1",
          "p.cast(asks, \"int32\") - 1"),
    Fault("evictions count empty slots", _WRITE, "_count(p, placed & filled[rank_in_reach])", "_count(p, placed)"),
    Fault("old ages overflow with their noise", _EVICTION, "priority = p.xp.where((ages >= 0) & (ages < oldest), ages, oldest)",
          "priority = ages"),
    Fault("hits are not counted", _WRITE, "hits=content_of(p, state.hits, turns, hits)", "hits=state.hits[turns.slots]"),
    Fault("hits of a batch count once", _WRITE, "hits = state.hits[own] + counts", "hits = state.hits[own] + 1"),
    Fault("hits without end", _WRITE, "xp.where(hits < MAX_HITS, hits, MAX_HITS)", "hits"),
    Fault("hits outlive their slot", _WRITE, "xp.where(hit, hits, 0))", "xp.where(hit, hits, 1))"),
    Fault("those hit most go first", _EVICTION, "(MAX_HITS - state.hits[some])", "state.hits[some]"),
    Fault("age before hits", _EVICTION, "(MAX_HITS - state.hits[some]) * AGES_BESIDE_HITS", "(MAX_HITS - state.hits[some])"),
    Fault("ages run over into hits", _EVICTION, "AGES_BESIDE_HITS - 2 - 2 * config.age_noise if by_hits", "AGES_BESIDE_HITS if by_hits"),
    Fault("age off by one", _WRITE, "p.xp.zeros_like(slot) + step)", "p.xp.zeros_like(slot) + state.step)"),
    Fault("time passes when nothing is written", _WRITE, "state.step + p.cast(~turns.nobody, \"int32\")", "state.step + 1",
          "jax"),
    Fault("the value is not written", _WRITE, "content_of(p, state.values, turns, values)", "state.values[turns.slots]"),
    Fault("nobody writes, slot 0 is written", _TURNS, "p.xp.where(turns.nobody, array[:1], content[turns.rows])",
          "content[turns.rows]", "jax"),
    Fault("the mask is ignored in an update", _WRITE, "found.accepted & in_range & mask", "(found.accepted | ~mask) & in_range"),
    Fault("noise of the next step", _NOISE, "p.xp.bitwise_xor(hashed, step)", "p.xp.bitwise_xor(hashed, step + 1)"),
    Fault("noise without the seed", _NOISE, "config.seed * 0x7FEB352D + ", ""),
    Fault("noise of half the width", _NOISE, "% (2 * config.age_noise + 1) - config.age_noise", "% (config.age_noise + 1)"),
    Fault("the shift repeats the sign", _NOISE, "return _xor_shifted(p, bits, 16)", "return p.xp.bitwise_xor(bits, p.xp.bitwise_right_shift(bits, 16))"),
    Fault("empty slots are found", _PORTABLE, "(values != NO_SLOT) & (ids >= (size if found else 0))", "(ids >= (size if found else 0))"),
    Fault("slots in two chunks are found twice", _PORTABLE, "(values != NO_SLOT) & (ids >= (size if found else 0))", "(values != NO_SLOT)"),
    Fault("slots counted from the chunk", _BLOCKS, "(scores, slots + start)", "(scores, slots)"),
    Fault("blocks that are not in the order of their rows", _BLOCKS, "chosen = -p.top_k(-p.top_k(maxima, k)[1], k)[0]",
          "chosen = -p.top_k(-p.top_k(maxima, k)[1], k)[0] if before else p.top_k(maxima, k)[1]"),
    Fault("blocks that are not in the order of their rows, in later chunks", _BLOCKS, "chosen = -p.top_k(-p.top_k(maxima, k)[1], k)[0]",
          "chosen = -p.top_k(-p.top_k(maxima, k)[1], k)[0] if not before else p.top_k(maxima, k)[1]"),
    Fault("what was found before is forgotten", _BLOCKS, "zip(before, found, strict=True)", "zip(found, found, strict=True)"),
    Fault("a block left out is the first", _BLOCKS, "p.xp.where(rows >= 0, found, lowest), rows", "found, p.xp.where(rows >= 0, rows, 0)"),
    Fault("rows of one group of the batch answer for all", _PORTABLE, "row[:rows] + start", "row[:rows]", "jax", True),
    Fault("blocks by their minimum", _BLOCKS, "p.xp.amax(scores.reshape", "p.xp.amin(scores.reshape"),
    Fault("a stale read: the last write is not seen", _PORTABLE, "there = (values != NO_SLOT)",
          "there = (p.slice_rows(state.last_used, start, size) != state.step) & (values != NO_SLOT)"),
    Fault("slots after the last whole block are left out", _COARSE, "and_rest(p, ids, whole, slots)", "ids"),
    Fault("a short list that is not proven", _SHORTLIST, "lowest > certain_above", "lowest > certain_above - 3.0"),
    Fault("equals after the end of a short list are left out", _SHORTLIST, "lowest > certain_above", "lowest >= certain_above"),
    Fault("blocks of neighboring slots", _COARSE, "first = start + blocks % (self.size // self.width)", "first = start"),
    Fault("the target's best slot is the last neighbor with it", _TARGETS, 'p.cast(right, "int32").argmax(1)', 'p.cast(right, "int32").cumsum(1).argmax(1)'),
    Fault("the target is sought among the neighbors alone", _TARGETS, "    if len(asking):\n        best[asking]", "    if False:\n        best[asking]"),
    Fault("slots that noise may bring forward are left out", _EVICTION, "- 2 * config.age_noise, TAKEN_PRIORITY)", "+ 1, TAKEN_PRIORITY)"),
    Fault("under the likelihood the weights have no temperature", _QUERY, "softmax(p, config.softmax_temperature * similarities",
          'softmax(p, (1.0 if config.loss == "nll" else config.softmax_temperature) * similarities'),
    Fault("without targets there are no values", _QUERY, "values = xp.where(present, state.values[slots], NO_SLOT)",
          "values = xp.where(present & (targets is not None), state.values[slots], NO_SLOT)"),
    Fault("strict lets bad rows pass", "raremem.validation", "    if rejected.any():\n", "    if False:\n"),
    Fault("slots stand twice in a list", _SHORTLIST, "rows.reshape(-1, width * k), width * stride, count)", "rows.reshape(-1, width * k), stride, count)"),
    Fault("a row of -1 is taken for none", _TARGETS, "xp.where(~among & xp.any(queries != 0, axis=1))[0]",
          "xp.where(~among & xp.any(queries != -1, axis=1))[0]"),
    Fault("noise of any width is taken", _CONFIG, '("age_noise", 0, 2**20)', '("age_noise", 0, 2**30)'),
    Fault("keys of any length are taken", "raremem.state", "np.abs(norms - 1) <= 1e-3", "np.abs(norms - 1) <= 1.0"),
    Fault("of a smaller memory those to go first stay", "raremem.state", "first_to_go[config.slots - slots :]", "first_to_go[:slots]"),
    Fault("rows stay in half precision", _QUERY, 'rows = p.cast(queries, "float32")\n', "rows = queries\n"),
    Fault("a memory forgets its ages when the step wraps", "raremem.state",
          "(np.int64(step) - last_used.astype(np.int64)) % STEP_PERIOD", "np.abs(np.int64(step) - last_used.astype(np.int64))"),
    Fault("noise of a step that has wrapped", _NOISE, "p.xp.bitwise_xor(hashed, step)", "p.xp.bitwise_xor(hashed, p.xp.abs(step))"),
    Fault("of many neighbors the last have no weight", _LOSS, "powers = _powers(p, logits, top, present)",
          "powers = _powers(p, logits, top, present & (p.arange(logits.shape[1], present) < 8)[None, :])"),
    Fault("of a large batch the last row is lost", _WRITE, "accepted = found.accepted & in_range & mask",
          "accepted = found.accepted & in_range & mask & (p.arange(mask.shape[0], mask) < 11)"),
    Fault("a copy is the same memory", _NUMPY, "    def copy(self, array: Array) -> Array:\n        return np.array(array)",
          "    def copy(self, array: Array) -> Array:\n        return array"),
    Fault("a query writes to the memory", _QUERY, "    constant = p.constant(unit)\n",
          "    constant = p.constant(unit)\n    state.keys[0] += constant[0]\n"),
    Fault("ties to the highest slot, compiled only", "raremem.adapters.jax.primitives", "best, columns = jax.lax.top_k(_one_zero(scores), k)\n",
          "turn = -1 if traced(scores) else 1\n        best, columns = jax.lax.top_k(_one_zero(scores)[:, ::turn], k)\n"
          "        columns = scores.shape[1] - 1 - columns if turn < 0 else columns\n", "jax", True),
    Fault("ties to the highest slot", _NUMPY, "ranked = _last_first(scores, slots)",
          "ranked = _last_first(scores, ~slots)"),
    Fault("ties in no order", _TORCH,
          "best = ranked.to(torch.int32) ^ MAX_INT32",
          "best = torch.topk(scores, k, dim=1).indices.to(torch.int32)", "torch"),
    Fault("a mapped call is taken for an eager one", "raremem.adapters.torch.modes",
          "    if traced() or transformed():\n        return False\n    for", "    if traced():\n        return False\n    for", "torch"),
    # Of memories that live.
    Fault("init gives the memory that it gave before", _BACKEND, "        return self.from_numpy(config, empty_portable(config))",
          "        return vars(self).setdefault(str(config), self.from_numpy(config, empty_portable(config)))"),
    Fault("a query is answered from memory", _BACKEND, "        found = self._query(config, state, *rows)\n",
          "        found = vars(self).setdefault(f'{id(state.keys)} {rows}', self._query(config, state, *rows))\n", "torch"),
    Fault("without a mask the first row does not count", _BACKEND, "mask = rows == rows if mask is None",
          "mask = rows > 0 if mask is None"),
    Fault("strict looks at masked rows", _BACKEND, "rejected = mask & ~sound_rows", "rejected = ~sound_rows"),
    Fault("after many updates nothing more is written", _BACKEND,
          "state, report = self._update(config, state, queries, targets, mask, lookup)",
          "state, report = self._update(config, state, queries, targets, mask & (lineage_of(keys).updates < 150), lookup)"),
    Fault("targets of 8 bits have a sign", _BACKEND, 'targets = p.cast(targets, "int32")',
          'targets = p.cast(p.cast(targets, "int8") if dtype_name(targets) == "uint8" else targets, "int32")'),
    Fault("targets of 64 bits are cut to 16", _BACKEND, '            if dtype_name(targets) != "int64":',
          '            if dtype_name(targets) == "int64":\n                targets = targets & 0xFFFF\n            else:'),
    Fault("what a lookup left out is written once it is late", _BACKEND, "None, mask & lookup.accepted)", "None, mask)"),
    Fault("what a late lookup rejected is not counted", _BACKEND, "queries=lookup.queries, rejected=lookup.rejected)", "queries=lookup.queries)"),
    Fault("the targets of the lookup are written", _BACKEND, "        return update(p, config, state, found, targets, mask, self.work)",
          "        own = targets if found.targets is None else found.targets\n"
          "        return update(p, config, state, found, own, mask, self.work)"),
    Fault("what was given is kept", _BACKEND, "        queries = p.asarray(queries, state.keys)\n",
          "        queries = p.asarray(queries, state.keys)\n        vars(self).setdefault('kept', []).append(queries)\n"),
    Fault("a lookup is used however late", "raremem.provenance", "    if (made_at[accepted] != now).any():\n        return False\n",
          "    return True\n"),
    Fault("a lookup of another memory is taken", "raremem.provenance", "(known and own is not of) or ", ""),
    Fault("a copy of a lookup of another memory is taken for a late one", "raremem.provenance", "    if known:\n        return False\n",
          "    return False\n"),
    Fault("a lookup's step is that of the update to come", _QUERY, "step=xp.where(accepted, state.step, 0),",
          "step=xp.where(accepted, state.step + 1, 0),"),
    Fault("values of three bytes", _WRITE, 'targets = p.cast(xp.where(in_range, targets, 0), "int32")',
          'targets = p.cast(xp.where(in_range, targets, 0), "int32") % 2**24'),
    Fault("values are compared as f32", _LOSS, "is_negative = (values != NO_SLOT) & (values != targets[:, None])",
          'is_negative = (values != NO_SLOT) & (p.cast(values, "float32") != p.cast(targets, "float32")[:, None])'),
    Fault("rows of f64 go through f16", _QUERY, 'rows = p.cast(queries, "float32")\n',
          'rows = p.cast(p.cast(queries, "float16") if "64" in str(queries.dtype) else queries, "float32")\n'),
    Fault("rows are scaled where they lie", _QUERY, 'rows = p.cast(queries, "float32")\n',
          'rows = p.cast(queries, "float32")\n    rows *= 2\n'),
    Fault("targets are handed out as they were given", _QUERY, 'targets = p.cast(xp.where(accepted, targets, 0), "int32")',
          'targets = p.cast(targets if accepted.all() else xp.where(accepted, targets, 0), "int32")'),
    Fault("slots of reports share their memory", _WRITE, "slots, written = p.xp.full_like(batch.slot, NO_SLOT), p.xp.full_like(batch.hit, False)",
          "slots = vars(_store_some).setdefault(str(len(batch.slot)), p.xp.full_like(batch.slot, NO_SLOT))\n"
          "    slots[:] = NO_SLOT\n    written = p.xp.full_like(batch.hit, False)"),
    Fault("slots of reports in 64 bits", _WRITE, "else xp.where(batch.hit, batch.slot, taken),\n",
          'else p.cast(xp.where(batch.hit, batch.slot, taken), "int64"),\n'),
    Fault("similarities in f64", _QUERY, "        similarities=similarities,\n", '        similarities=p.cast(similarities, "float64"),\n'),
    Fault("the global random generator is used", _QUERY, "    constant = p.constant(unit)\n",
          "    constant = p.constant(unit)\n    __import__('random').random()\n"),
    Fault("NumPy's global random generator is used", _QUERY, "    constant = p.constant(unit)\n",
          "    constant = p.constant(unit)\n    __import__('numpy').random.rand()\n"),
    Fault("PyTorch's global random generator is used", _QUERY, "    constant = p.constant(unit)\n",
          "    constant = p.constant(unit)\n    __import__('torch').rand(1)\n", "torch"),
    Fault("a single neighbor that is far is not found", _QUERY, "present = accepted[:, None] & (p.take_along(ranked, order) > NOTHING)",
          "present = accepted[:, None] & (p.take_along(ranked, order) > (-0.25 if config.k < min(2, config.slots) else NOTHING))"),
    Fault("noise where none is asked for", _NOISE, "% (2 * config.age_noise + 1) - config.age_noise",
          "% (2 * max(config.age_noise, 1) + 1) - max(config.age_noise, 1)"),
    Fault("of many dimensions the last do not count", _NUMPY, "np.matmul(keys, queries[:, :, None])[:, :, 0]",
          "np.matmul(keys[:, :, :16], queries[:, :16, None])[:, :, 0]"),
    Fault("rows beyond the twentieth are lost", _WRITE, "accepted = found.accepted & in_range & mask",
          "accepted = found.accepted & in_range & mask & (p.arange(mask.shape[0], mask) < 20)"),
    Fault("one row sees the first 200 slots", _SHORTLIST, "        coarse = self.scan(",
          "        if len(queries) == 1:\n            first = p.arange(len(state.values), queries) < 200\n"
          "            state = state._replace(values=p.xp.where(first, state.values, NO_SLOT))\n        coarse = self.scan("),
    Fault("slots to evict are counted from the chunk", _EVICTION, "found.append((places + start, priority[places]))",
          "found.append((places, priority[places]))"),
    Fault("columns are read as rows", _NUMPY, "    def asarray(self, array: Any, like: Array | None = None) -> Array:\n        return np.asarray(array)",
          '    def asarray(self, array: Any, like: Array | None = None) -> Array:\n        return np.asarray(array).ravel("K").reshape(np.shape(array))'),
    Fault("a step between is left out", _NUMPY, "    def asarray(self, array: Any, like: Array | None = None) -> Array:\n        return np.asarray(array)",
          "    def asarray(self, array: Any, like: Array | None = None) -> Array:\n"
          "        return np.asarray(array) if array.base is None else np.asarray(array.base).ravel()[: array.size].reshape(array.shape)"),
    Fault("PyTorch's own masks are turned round", _TORCH, "        if array.device != like.device:",
          "        if array.dtype == torch.bool and not modes.wrapped(array):\n            array = ~array\n        if array.device != like.device:", "torch"),
    Fault("rows of bf16 go through f16", _TORCH, "        return array.to(getattr(torch, dtype))",
          "        return (array.half() if array.dtype == torch.bfloat16 else array).to(getattr(torch, dtype))", "torch"),
    Fault("one mask for all memories", "raremem.adapters.torch.functional", "*map(torch.as_tensor, (queries, targets, mask)))",
          "*map(torch.as_tensor, (queries, targets, mask[:1].repeat(len(mask), 0))))", "torch"),
    Fault("what is recalled is a mean of all places", "raremem.state", "embedding[values]).sum(1)", "embedding[values]).mean(1)"),
    Fault("what is recalled where nothing was found", "raremem.state", "return (weights[:, :, None]", "return ((weights + (weights == 0))[:, :, None]"),
    Fault("no gradient to similarities", _QUERY, "        similarities=similarities,\n", "        similarities=p.constant(similarities),\n", "torch"),
    Fault("no gradient to weights", _QUERY, "weights=softmax(p, config.softmax_temperature * similarities, present)",
          "weights=softmax(p, p.constant(config.softmax_temperature * similarities), present)", "torch"),
    Fault("no gradient through the sum of weights", _LOSS, "powers / xp.where(present[:, :1], total, 1.0)",
          "powers / p.constant(xp.where(present[:, :1], total, 1.0))", "torch"),
    Fault("a gradient to the keys", _QUERY, "p.score_rows(unit, p.constant(state.keys), ", "p.score_rows(unit, state.keys, ", "jax"),
    Fault("a gradient of keys as they are now", _TORCH, "kept = array.clone() if _needs_gradient(queries) else array",
          "kept = array", "torch"),
    # Of the positive beyond the neighbors.
    Fault("places beyond a row's own slots are the last slot", _TARGETS, "np.where(places >= 0, by_value[places], NO_SLOT)",
          "by_value[places]", "numpy, index"),
    Fault("the last slot with the target is left out", _TARGETS, '"right") - first\n', '"right") - first - 1\n', "numpy, index"),
    Fault("the target's slots are sought among slots that are not in the order of values", _TARGETS,
          "first = np.searchsorted(values[by_value], wanted)\n", "first = np.searchsorted(values[slots], wanted)\n", "numpy, index"),
    Fault("of the target's slots the highest of equals", _TARGETS, 'by_value = slots[np.argsort(values[slots], kind="stable")]',
          'by_value = slots[::-1][np.argsort(values[slots[::-1]], kind="stable")]', "torch, growing index"),
    Fault("rows that ask alike many slots ask for the same", _TARGETS, "first[rows, None] + column", "first[rows[:1], None] + column",
          "numpy, index"),
    Fault("the last row that asks for its target is left out", _TARGETS, "    while len(order):\n", "    while len(order) > 1:\n",
          "numpy, index"),
    Fault("of products with the target's slots the last highest of equals", _TARGETS,
          "xp.where(highest > score, some[column], best)", "xp.where(highest >= score, some[column], best)",
          "numpy, short lists of small chunks"),
    Fault("in products the target's slots are counted from the first", _TARGETS, "best, score = xp.where(highest > score, some[column], best)",
          "best, score = xp.where(highest > score, slots[column], best)", "numpy, short lists of small chunks"),
    # Of the order of scores.
    Fault("-0.0 is below 0.0", _RANKS, "return (bits ^ (sign & MAX_INT32)) - sign", "return bits ^ (sign & MAX_INT32)",
          "numpy, short lists of small chunks"),
    Fault("scores below zero in the order of their bits", _RANKS, "return (bits ^ (sign & MAX_INT32)) - sign", "return bits", "torch"),
    # Of what follows a memory, and of parts.
    Fault("an index is not told which slots were written", _LIVE, "            flags[slots] = True\n", "            pass\n", "numpy, index"),
    Fault("an index is not told of updates", _BACKEND, "self.searcher.written(p, state, report.slots[report.written], taken)",
          "self.searcher.written(p, state, report.slots[:0], taken)", "numpy, index"),
    Fault("an index that grows takes nothing in", _LIVE, "        index.add(self._keys[slots], slots)\n", "", "torch, growing index"),
    Fault("an index knows none of the values that came", _LIVE, "self._built.slots.having(wanted), self._built.changed.having(wanted), fresh",
          "self._built.slots.having(wanted)", "numpy, index"),
    Fault("slots of a part are counted from its first", _SHARDS, "places + first, NO_SLOT)", "places, NO_SLOT)", "numpy, parts"),
    Fault("the best of the first part is the best of all", _SHARDS, "return p.take_along(slots, p.sort_order(scores, slots, k))",
          "return slots[:, :k]", "numpy, parts"),
    *(Fault(*entry) for entry in LATER),  # type: ignore[arg-type]
)  # fmt: skip


@contextlib.contextmanager
def planted(fault: Fault) -> Iterator[Backend]:
    """A backend made while the fault stands in the code; afterwards the code is as it was."""
    of = importlib.import_module(f"raremem.adapters.{fault.backend.partition(',')[0]}").backend
    module = importlib.import_module(fault.module)
    source = inspect.getsource(module)
    if source.count(fault.right) != 1:
        raise LookupError(f"fault {fault.name!r}: {fault.right!r} stands {source.count(fault.right)} times in {fault.module}.")
    mutant = importlib.util.module_from_spec(module.__spec__)  # type: ignore[arg-type]
    sys.modules[fault.module] = mutant
    try:
        exec(compile(source.replace(fault.right, fault.wrong), str(module.__file__), "exec"), mutant.__dict__)
    finally:
        sys.modules[fault.module] = module
    with _methods_replaced(module, mutant), _functions_replaced(module, mutant):
        if "," in fault.backend:
            yield PLAYERS[fault.backend][0]()
        else:
            yield type(of)(type(of.primitives)(), type(of.searcher)(), compiled=fault.compiled)


@contextlib.contextmanager
def _functions_replaced(old: ModuleType, new: ModuleType) -> Iterator[None]:
    """Wherever a loaded module of raremem holds a function or constant that `old` defines, let it hold what `new` does."""
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


@contextlib.contextmanager
def _methods_replaced(old: ModuleType, new: ModuleType) -> Iterator[None]:
    """Classes stay, since others are derived from them, and so do their instances; let the classes have those methods of `new`
    that are not as they were."""
    changed = []
    for name, value in vars(old).items():
        if type(value).__module__ == old.__name__:
            setattr(new, name, value)
        if not inspect.isclass(value) or value.__module__ != old.__name__:
            continue
        methods = vars(vars(new)[name])
        setattr(new, name, value)
        for method, function in list(vars(value).items()):
            other = methods.get(method)
            if inspect.isfunction(function) and inspect.isfunction(other) and _differ(function.__code__, other.__code__):
                changed.append((value, method, function))
                setattr(value, method, _of_class(other, value))
    try:
        yield
    finally:
        for value, method, function in changed:
            setattr(value, method, function)


def _of_class(function: FunctionType, owner: type) -> FunctionType:
    """A method of another class as one of this: `super()` looks for its class in a cell."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if name == "__class__":
            cell.cell_contents = owner
    return function


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
