"""Mutants that no law notices: each with the reason why.

Most are here because no user could tell: nothing of them can be seen in any answer, at any size, on any backend; how long a
call takes, and how much memory, is not seen. What some user could tell, but no law on these backends, is `told`, and counts as
left. An entry that fits no mutant of today's code is an error, and so is one that a law kills.
"""

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


EXPLAINED: tuple[Explained, ...] = (
    Explained(
        "raremem.adapters.numpy",
        "NumpyPrimitives.to_numpy",
        "return np.array(array)",
        "return array",
        "What asks for it makes a copy of its own: to_portable of all arrays, and an index by picking from them.",
    ),
    Explained(
        "raremem.adapters.numpy",
        "NumpyPrimitives.from_numpy",
        "return MemoryState(*(np.array(array) for array in state))",
        "return MemoryState(*(array for array in state))",
        "What it would copy was made by check_portable and from_portable for this state alone.",
    ),
    Explained(
        "raremem.adapters.numpy",
        "NumpyPrimitives.inner",
        "return left @ right.T if len(left) > len(right) else (right @ left.T).T",
        "return (left @ right.T)",
        "The same product; which of the two ways is taken is a matter of time.",
    ),
    Explained(
        "raremem.adapters.numpy",
        "NumpyPrimitives.top_k",
        "return np.take_along_axis(scores, best, axis=1), best",
        "return np.take_along_axis(scores, best), best",
        "The array has two dimensions, so that the last axis, which is NumPy's default here, is the axis 1.",
    ),
    Explained(
        "raremem.algorithm",
        "",
        "BLOCK = 64",
        "BLOCK = 63",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.algorithm",
        "update",
        "hit = accepted & (slot != NO_SLOT) & (found.values[:, 0] == targets) & still",
        "hit = accepted & (found.values[:, 0] == targets) & still",
        "Where there is no slot the lookup's value is -1, which no accepted target is.",
    ),
    Explained(
        "raremem.algorithm",
        "_store",
        'rank = p.cast(xp.cumsum(p.cast(miss, "int32"), axis=0), "int32") - 1',
        'rank = p.cast(xp.cumsum(p.cast(miss, "int32")), "int32") - 1',
        "The array has one dimension, so that its only axis is the same as none, and its only index array is the last one too.",
    ),
    Explained(
        "raremem.algorithm",
        "normalize",
        "rows, largest = xp.where(accepted[:, None], rows, 1.0), xp.where(accepted, largest, 1.0)",
        "rows, largest = xp.where(accepted[:, None], rows, 1.0), xp.where(accepted, largest, 2.0)",
        "Rows that are not accepted are set to zero afterwards, whatever they are divided by.",
    ),
    Explained(
        "raremem.algorithm",
        "_similarities",
        "gathered = unit.shape[0] * slots.shape[1] * keys.shape[1]",
        "gathered = (unit.shape[0] * slots.shape[1])",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.algorithm",
        "_similarities",
        "if p.eager(keys) and gathered >= GATHERED and 2 * unit.shape[0] * len(state.values) <= gathered:",
        "if ((gathered >= GATHERED) and (2 * unit.shape[0] * len(state.values) <= gathered)):",
        "Both ways give the same similarities; which of them is taken in traced code is a matter of time and memory.",
    ),
    Explained(
        "raremem.algorithm",
        "_similarities",
        "if p.eager(keys) and gathered >= GATHERED and 2 * unit.shape[0] * len(state.values) <= gathered:",
        "if p.eager(keys) and gathered >= GATHERED and 2 * unit.shape[0] * len(state.values) < gathered:",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.algorithm",
        "_similarities",
        "if p.eager(keys) and gathered >= GATHERED and 2 * unit.shape[0] * len(state.values) <= gathered:",
        "if p.eager(keys) and gathered >= GATHERED and 2 + unit.shape[0] * len(state.values) <= gathered:",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.algorithm",
        "_negative_log_likelihood",
        "nearest, highest = p.constant(logits)[:, 0], p.constant(best)",
        "nearest, highest = p.constant(logits)[:, 0], best",
        "What is subtracted from both sides and added again has no gradient of its own, whether it is a constant or not.",
    ),
    Explained(
        "raremem.algorithm",
        "_free_slots",
        "symbolic = p.blocks() and not isinstance(batch, int)",
        "symbolic = p.blocks() or not isinstance(batch, int)",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.algorithm",
        "_free_slots",
        "if p.eager(slot) and config.slots >= 2 * BLOCK * count:",
        "if p.eager(slot) and config.slots >= (2 * BLOCK):",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.algorithm",
        "_contenders",
        "places = xp.where(priority >= lowest)[0]",
        "places = xp.where(priority >= lowest)[-1]",
        "The array has one dimension, so that its only axis is the same as none, and its only index array is the last one too.",
    ),
    Explained(
        "raremem.algorithm",
        "_eviction_priority",
        "priority = (MAX_HITS - some(state.hits)) * AGES_BESIDE_HITS + priority + config.age_noise",
        "priority = (MAX_HITS - some(state.hits)) * AGES_BESIDE_HITS + priority - config.age_noise",
        "It moves the priorities of all filled slots by one and the same number, and they stay below that of an empty slot.",
    ),
    Explained(
        "raremem.algorithm",
        "_all_ordinary",
        "return bool((p.xp.amin(values) != NO_SLOT) & (p.xp.amin(ages) >= 0) & (p.xp.amax(ages) < oldest))",
        "return bool((p.xp.amin(values) != NO_SLOT) & (p.xp.amin(ages) >= -1) & (p.xp.amax(ages) < oldest))",
        "An age of -1 is one of exactly 2**32 - 1 updates, one before the slot looks new by its own definition.",
    ),
    Explained(
        "raremem.algorithm",
        "_count",
        'return p.cast(p.xp.sum(p.cast(rows, "int32"), axis=0), "int32")',
        'return p.cast(p.xp.sum(p.cast(rows, "int32")), "int32")',
        "The array has one dimension, so that its only axis is the same as none, and its only index array is the last one too.",
    ),
    Explained(
        "raremem.checkpoint",
        "save",
        "replace_file(Path(path), safetensors.numpy.save(arrays, {HEADER: json.dumps(header, sort_keys=True)}))",
        "replace_file(Path(path), safetensors.numpy.save(arrays, {HEADER: json.dumps(header, sort_keys=False)}))",
        "The order of the fields is that of the config's class: equal memories still give equal bytes.",
    ),
    Explained(
        "raremem.checkpoint",
        "_schema",
        'if not isinstance(header["config"], dict):',
        "if False:",
        "The file is refused all the same, by the next step; only the words in parentheses differ.",
    ),
    Explained(
        "raremem.index",
        "",
        "FRESH = 4096",
        "FRESH = 4095",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.index",
        "LiveIndex._follow",
        "self._followed = state.keys",
        "pass",
        "An index is then built for every query: this takes time, and the answers are the same.",
    ),
    Explained(
        "raremem.index",
        "LiveIndex._follow",
        "keys, values = p.peek(state.keys), p.peek(state.values)",
        "keys, values = p.peek(state.keys), state.values",
        "A tensor that lies on a CPU does here what the array that shares its memory does.",
    ),
    Explained(
        "raremem.index",
        "LiveIndex._is_due",
        "if self._built is None:",
        "if True:",
        "An index is then built anew whenever it may be: this takes time, and the answers are the same.",
    ),
    Explained(
        "raremem.index",
        "LiveIndex._is_due",
        "return int(np.count_nonzero(self._changed)) > max(FRESH, len(self._built.slots.slots) // SHARE)",
        "return np.count_nonzero(self._changed) > max(FRESH, len(self._built.slots.slots) // SHARE)",
        "A NumPy bool is as true as Python's.",
    ),
    Explained(
        "raremem.index",
        "LiveIndex._sound",
        "proposed = np.sort(np.where((proposed >= 0) & (proposed < len(self._fresh)), proposed, NO_SLOT), axis=1)",
        "proposed = np.sort(np.where((proposed >= 0) & (proposed < len(self._fresh)), proposed, NO_SLOT))",
        "The last axis, which is the default, is the axis 1.",
    ),
    Explained(
        "raremem.noise",
        "age_noise",
        "hashed = _mix(p, p.bits_xor(slots, wrap_int32(config.seed * 0x7FEB352D + 0x9E3779B1)))",
        "hashed = _mix(p, p.bits_xor(wrap_int32(config.seed * 0x7FEB352D + 0x9E3779B1), slots))",
        "The bits that two numbers do not share do not depend on which comes first.",
    ),
    Explained(
        "raremem.primitives",
        "Primitives.eager",
        "return False",
        "return None",
        "None is as false as False.",
    ),
    Explained(
        "raremem.primitives",
        "Primitives.blocks",
        "return True",
        "return None",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.primitives",
        "Primitives.held",
        "return 2**21",
        "return 3**21",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.provenance",
        "",
        "F32 = 2.0**-24",
        "F32 = 2.0**-25",
        "Half of the bound, 2 (key_dim + 4) units, is still what the two sums of key_dim products can be off by.",
    ),
    Explained(
        "raremem.provenance",
        "_noted",
        "return (lineage, updates) if reference is not None and reference() is array else (None, 0)",
        "return (lineage, updates) if (reference is not None) else (None, 0)",
        "An entry is deleted as soon as its array goes, so that a reference that is found is always to this array.",
    ),
    Explained(
        "raremem.provenance",
        "_noted",
        "return (lineage, updates) if reference is not None and reference() is array else (None, 0)",
        "return (lineage, updates) if reference is not None and reference() is array else (None, 1)",
        "Without a lineage the number of updates is never looked at.",
    ),
    Explained(
        "raremem.provenance",
        "_holds",
        "if slots is None or values is None or answered is None:",
        "if slots is None and values is None or answered is None:",
        "The arrays of a lookup and of a state lie on one device: all of them can be seen, or none.",
    ),
    Explained(
        "raremem.provenance",
        "_holds",
        "if similarities is None or queries is None or keys is None:",
        "if ((queries is None) or (keys is None)):",
        "The arrays of a lookup lie on one device: all of them can be seen, or none, and then the line before has answered.",
    ),
    Explained(
        "raremem.provenance",
        "_holds",
        "return bool((off <= 4 * (keys.shape[1] + 4) * F32).all())",
        "return bool((off <= 5 * (keys.shape[1] + 4) * F32).all())",
        "The bound is above what rounding can do either way; keys of another memory are off by far more.",
    ),
    Explained(
        "raremem.scan",
        "",
        "CHUNK = 2**14",
        "CHUNK = 2**13",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.scan",
        "",
        "FEW, MANY = 16, 128",
        "FEW, MANY = 16, 127",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.scan",
        "scan",
        "if not isinstance(batch, int): # a symbol, of an exported program: no groups, since it is not known how many",
        "if True: # a symbol, of an exported program: no groups, since it is not known how many",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.scan",
        "scan.body",
        "start = batch - (groups - index) * rows",
        "start = batch - (index) * rows",
        "The same groups of rows, one after the other, in another order.",
    ),
    Explained(
        "raremem.scan",
        "_scan_group.with_chunk",
        'absent = p.cast(p.xp.where((values != NO_SLOT) & (ids >= first), 0.0, NOTHING), "float32")',
        'absent = p.cast(p.xp.where((values != NO_SLOT) & (ids >= first), 1.0, NOTHING), "float32")',
        "All scores are one higher, and in the same order but for rounding, which is below that of any sum of products in f32.",
    ),
    Explained(
        "raremem.scan",
        "block_width",
        "return 2 ** max(0, int(math.log2(count / k) / 2))",
        "return 2 ** max(-1, int(math.log2(count / k) / 2))",
        "There are never fewer numbers than are asked for, so that the logarithm is never below 0.",
    ),
    Explained(
        "raremem.scan",
        "block_width",
        "return 2 ** max(0, int(math.log2(count / k) / 2))",
        "return 2 ** max(0, int(math.log2(count / k) / 1))",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.scan",
        "block_width",
        "return 2 ** max(0, int(math.log2(count / k) / 2))",
        "return 2 ** min(0, int(math.log2(count / k) / 2))",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.search",
        "",
        "ROWS = 512",
        "ROWS = 513",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.search",
        "",
        "MAXIMA = 2**23",
        "MAXIMA = 2**24",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.search",
        "",
        "CHUNK = 2**14",
        "CHUNK = 2**15",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.search",
        "_filled",
        "if state.values[-1] != NO_SLOT:",
        "if False:",
        "Cutting the empty slots at the end of a memory saves time only: nothing that is empty is ever found.",
    ),
    Explained(
        "raremem.search",
        "_filled",
        "if state.values[-1] != NO_SLOT:",
        "if not (state.values[-1] != NO_SLOT):",
        "Cutting the empty slots at the end of a memory saves time only: nothing that is empty is ever found.",
    ),
    Explained(
        "raremem.search",
        "_filled",
        "return state._replace( keys=state.keys[:count], values=state.values[:count], "
        "last_used=state.last_used[:count], hits=state.hits[:count] )",
        "return state._replace(keys=state.keys[:count], values=state.values[:count], last_used=state.last_used[:count])",
        "The search does not read how often slots were hit.",
    ),
    Explained(
        "raremem.search",
        "width_and_rows",
        "alike = 2 ** max(2, round(math.log2(slots / (blocks * dim)) / 2))",
        "alike = 2 ** max(2, round((2)))",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.search",
        "width_and_rows",
        "if slots * batch <= SCORES or not few_enough(slots, blocks, alike):",
        "if True:",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.search",
        "width_and_rows",
        "if slots * batch <= SCORES or not few_enough(slots, blocks, alike):",
        "if slots * batch <= SCORES and not few_enough(slots, blocks, alike):",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.search",
        "width_and_rows",
        "while rows >= 2 * FEWEST_ROWS and slots * rows > 2 * alike * MAXIMA:",
        "while rows >= 2 * FEWEST_ROWS and slots * rows <= 2 * alike * MAXIMA:",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.search",
        "width_and_rows",
        "while rows >= 2 * FEWEST_ROWS and slots * rows > 2 * alike * MAXIMA:",
        "while rows >= 2 * FEWEST_ROWS and slots * rows > (2 * alike):",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.search",
        "width_and_rows",
        "while rows >= 2 * FEWEST_ROWS and slots * rows > 2 * alike * MAXIMA:",
        "while rows >= 2 * FEWEST_ROWS and slots * rows > (2) * MAXIMA:",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.search",
        "width_and_rows",
        "while rows >= 2 * FEWEST_ROWS and slots * rows > 2 * alike * MAXIMA:",
        "while rows >= 2 * FEWEST_ROWS and slots * rows > alike * MAXIMA:",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.search",
        "_shortlisted",
        "coarse, blocks = coarse_scan(p, state, queries, width), k + 1 if width == 1 else shortlist(k)",
        "coarse, blocks = coarse_scan(p, state, queries, width), k if width == 1 else shortlist(k)",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.search",
        "_shortlisted",
        "while len(left) and few_enough(len(state.values), 2 * blocks, width):",
        "while len(left) and few_enough(len(state.values), 3 * blocks, width):",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.search",
        "coarse_scan",
        "if width == 1:",
        "if False:",
        "In low precision, too, the bound proves the answer or all slots are scored in f32.",
    ),
    Explained(
        "raremem.search",
        "coarse_scan",
        "return CoarseScan(p.inner(queries, state.keys).T, 0 * queries[:, 0], 0.0, 1, len(state.keys))",
        "return CoarseScan(p.inner(queries, state.keys).T, 0 * queries[:, 0], 1.0, 1, len(state.keys))",
        "More queries are then held to be unproven, and all slots are scored for them: the answers are the same.",
    ),
    Explained(
        "raremem.search",
        "coarse_scan",
        'asked = low if dtype == "float32" else _of_few_sizes(p, low)',
        'asked = low if dtype != "float32" else _of_few_sizes(p, low)',
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.search",
        "coarse_scan",
        "most = min(SCORES // len(asked), CHUNK if keys is state.keys else len(keys))",
        "most = min(CHUNK if keys is state.keys else len(keys), SCORES // len(asked))",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.search",
        "coarse_scan",
        "most = min(SCORES // len(asked), CHUNK if keys is state.keys else len(keys))",
        "most = min(SCORES // len(asked), len(keys))",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.search",
        "coarse_scan",
        "maxima = p.xp.empty_like(p.xp.broadcast_to(asked[:, 0], (whole // width, len(asked))))",
        "maxima = p.xp.empty_like(p.xp.broadcast_to(asked[:, -1], (whole // width, len(asked))))",
        "The array only lends its shape and its dtype, which the last column has as well as the first.",
    ),
    Explained(
        "raremem.search",
        "_of_few_sizes",
        "grain = FEWEST_ROWS if len(rows) >= FEWEST_ROWS else 8",
        "grain = FEWEST_ROWS",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.search",
        "of_best_blocks",
        "others = coarse.most_beyond(p, highest) if blocks < len(coarse.maxima) else 0 * coarse.error + NOTHING",
        "others = coarse.most_beyond(p, highest) if blocks < len(coarse.maxima) else 0 + coarse.error + NOTHING",
        "The bound beside the number that stands for nothing is lost in its rounding.",
    ),
    Explained(
        "raremem.search",
        "of_best_blocks",
        "rows = max(1, GATHERED // (blocks * width * queries.shape[1]))",
        "rows = max(1, GATHERED // ((blocks * width)))",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.search",
        "largest",
        "if width == 1:",
        "if not (width == 1):",
        "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
        "only time and memory differ.",
    ),
    Explained(
        "raremem.search",
        "_best_of",
        "score = xp.full_like(queries[:, 0], NOTHING)",
        "score = xp.full_like(queries[:, -1], NOTHING)",
        "The array only lends its shape and its dtype, which the last column has as well as the first.",
    ),
    Explained(
        "raremem.search",
        "_best_of",
        "highest = p.take_along(scores, column[:, None])[:, 0]",
        "highest = p.take_along(scores, column[:, None])[:, -1]",
        "The array has one dimension, so that its only axis is the same as none, and its only index array is the last one too.",
    ),
    Explained(
        "raremem.state",
        "to_portable",
        "ages = np.minimum((np.int64(step) - last_used.astype(np.int64)) % STEP_PERIOD, MAX_INT32).astype(np.int32)",
        "ages = np.minimum((np.int64(step) - last_used) % STEP_PERIOD, MAX_INT32).astype(np.int32)",
        "A NumPy i64 less an array of i32 is of i64.",
    ),
    Explained(
        "raremem.state",
        "check_portable",
        "if not np.all(np.abs(norms - 1) <= 1e-3):",
        "if not np.all(np.abs(norms - 1) < 1e-3):",
        "They differ for a norm that is 1e-3 off to the last bit of f64, of which no sum of squares of f32 numbers is known.",
    ),
    Explained(
        "raremem.state",
        "wrap_int32",
        "return (number + 2**31) % 2**32 - 2**31",
        "return (number - 2**31) % 2**32 - 2**31",
        "Modulo 2**32 it is the same number.",
    ),
    Explained(
        "raremem.validation",
        "check_queries",
        "shape = tuple(queries.shape)",
        "shape = queries.shape",
        "Every framework's shape is a tuple; only the words of the error differ, where PyTorch's tuple has a name.",
    ),
    Explained(
        "raremem.validation",
        "check_targets",
        "bad = (targets < 0) | (targets.astype(np.int64) > MAX_INT32)",
        "bad = (targets < 0) | (targets > MAX_INT32)",
        "NumPy compares whole numbers of any width with a Python number of any size.",
    ),
    Explained(
        "raremem.validation",
        "check_state",
        "if tuple(shape) != (config.slots, config.key_dim):",
        "if shape != (config.slots, config.key_dim):",
        "Every caller gives a tuple.",
    ),
    Explained(
        "raremem.adapters.numpy",
        "NumpyPrimitives.peek",
        "return np.asarray(array)",
        "return array",
        "Arrays of another framework given to the NumPy backend; laws give it NumPy's.",
        told=True,
    ),
    Explained(
        "raremem.algorithm",
        "update",
        "in_range = (targets >= 0) & (targets <= MAX_INT32)",
        "in_range = (targets >= 0) | (targets <= MAX_INT32)",
        "Reached only where the content of arrays cannot be seen, on a GPU or in traced code; none of these "
        "backends is such a one.",
        told=True,
    ),
    Explained(
        "raremem.algorithm",
        "update",
        "rows = xp.where(accepted)[0] if p.eager(accepted) else None",
        "rows = xp.where(accepted)[0]",
        "In traced code alone: JAX has no shapes that depend on data. These backends have no compiler; JAX was not tried.",
        told=True,
    ),
    Explained(
        "raremem.algorithm",
        "_eviction_priority",
        "if not by_hits and p.eager(ages) and _all_ordinary(p, ages, values, oldest):",
        "if ((not by_hits) and _all_ordinary(p, ages, values, oldest)):",
        "In traced code alone: JAX cannot ask a traced array for its truth. These backends have no compiler; "
        "JAX was not tried.",
        told=True,
    ),
    Explained(
        "raremem.backend",
        "Backend.mode",
        'return "compiled" if self.compiled else "eager"',
        'return ("eager")',
        "These backends are not compiled.",
        told=True,
    ),
    Explained(
        "raremem.backend",
        "ArrayBackend.query",
        "return self.in_turn(state, self.index is not None, self._answered, config, state, queries, targets, mask)",
        "return self.in_turn(state, self.index is None, self._answered, config, state, queries, targets, mask)",
        "Only a call from another thread at the same time can tell; held by tests/test_threads.py.",
        told=True,
    ),
    Explained(
        "raremem.backend",
        "ArrayBackend._updated",
        "keys = self.primitives.identity(state.keys)",
        "keys = state.keys",
        "In traced code alone, where an array has no identity. These backends have no compiler, and none was tried.",
        told=True,
    ),
    Explained(
        "raremem.backend",
        "ArrayBackend.copy",
        "arrays = self.in_turn(state, False, lambda: [self.primitives.copy(array) for array in state])",
        "arrays = self.in_turn(state, True, lambda: [self.primitives.copy(array) for array in state])",
        "Only a copy in one thread beside a query in another can tell: it would be refused. No test holds it yet.",
        told=True,
    ),
    Explained(
        "raremem.backend",
        "ArrayBackend.in_turn",
        "return guard.in_turn(None if keys is None else id(keys), alone, call, *arguments)",
        "return guard.in_turn((None), alone, call, *arguments)",
        "Only a call from another thread at the same time can tell; held by tests/test_threads.py.",
        told=True,
    ),
    Explained(
        "raremem.backend",
        "ArrayBackend._checked",
        "seen_mask = p.peek(mask)",
        "seen_mask = mask",
        "Reached only where the content of arrays cannot be seen, on a GPU or in traced code; none of these "
        "backends is such a one.",
        told=True,
    ),
    Explained(
        "raremem.backend",
        "ArrayBackend._checked",
        'if dtype_name(targets) != "int64":',
        "if True:",
        "Reached only where the content of arrays cannot be seen, on a GPU or in traced code; none of these "
        "backends is such a one.",
        told=True,
    ),
    Explained(
        "raremem.checkpoint",
        "save",
        'backend = get_backend(getattr(state, "keys", state) if backend is None else backend)',
        "pass",
        "The laws name the backend that saves; held by tests/test_checkpoint.py, which leaves it out.",
        told=True,
    ),
    Explained(
        "raremem.checkpoint",
        "_read",
        "if path.is_dir() or path.is_file():",
        "if path or path.is_file():",
        "A FIFO with no writer would be waited for; a test in tests/test_checkpoint.py has one.",
        told=True,
    ),
    Explained(
        "raremem.index",
        "LiveIndex.rebuild",
        "if self._followed is not None:",
        "if False:",
        "LiveIndex.rebuild is not called by the laws, which build an index in the call; held by tests/test_index.py.",
        told=True,
    ),
    Explained(
        "raremem.index",
        "LiveIndex._is_due",
        "return int(np.count_nonzero(self._values != NO_SLOT)) >= SMALLEST",
        "return int(np.count_nonzero(self._values != NO_SLOT)) < SMALLEST",
        "The index is not built, and the answers are exact; time and LiveIndex.ready tell. Held by tests/test_index.py.",
        told=True,
    ),
    Explained(
        "raremem.index",
        "LiveIndex._proposed_and_fresh",
        "few = np.flatnonzero((found[:, -1] == NO_SLOT) & (queries != 0).any(axis=1))",
        "few = np.flatnonzero((found[:, -1] != NO_SLOT) & (queries != 0).any(axis=1))",
        "Where an index proposes too few slots; the laws' index proposes all.",
        told=True,
    ),
    Explained(
        "raremem.index",
        "LiveIndex._proposed_and_fresh",
        "few = np.flatnonzero((found[:, -1] == NO_SLOT) & (queries != 0).any(axis=1))",
        "few = np.flatnonzero((found[:, -1] == NO_SLOT) & (queries != 1).any(axis=1))",
        "With key_dim=1 alone, where an index proposes too few slots; the laws' index proposes all.",
        told=True,
    ),
    Explained(
        "raremem.index",
        "LiveIndex._sound",
        "proposed = np.sort(np.where((proposed >= 0) & (proposed < len(self._fresh)), proposed, NO_SLOT), axis=1)",
        "proposed = np.sort(np.where((proposed >= 0) & (proposed <= len(self._fresh)), proposed, NO_SLOT), axis=1)",
        "Where an index proposes a slot that is not there; the laws' index does not.",
        told=True,
    ),
    Explained(
        "raremem.provenance",
        "_forget",
        "if key in _lineages and _lineages[key][0] is gone:",
        "if not (key in _lineages and _lineages[key][0] is gone):",
        "What is noted of arrays is then never forgotten: a few bytes stay for every call. No law measures that.",
        told=True,
    ),
    Explained(
        "raremem.provenance",
        "is_current",
        "return own is None or (known and updates == at)",
        "return own is None or (known)",
        "Reached only where the content of arrays cannot be seen, on a GPU or in traced code; none of these "
        "backends is such a one.",
        told=True,
    ),
    Explained(
        "raremem.provenance",
        "is_current",
        "return own is None or (known and updates == at)",
        "return own is not None or (known and updates == at)",
        "Reached only where the content of arrays cannot be seen, on a GPU or in traced code; none of these "
        "backends is such a one.",
        told=True,
    ),
    Explained(
        "raremem.provenance",
        "_holds",
        "return True",
        "return None",
        "Reached only where the content of arrays cannot be seen, on a GPU or in traced code; none of these "
        "backends is such a one.",
        told=True,
    ),
    Explained(
        "raremem.search",
        "shortlist",
        "return k + k // 2 + 8",
        "return (k // 2) + 8",
        "Exact answers are the same. An approximate index is asked for fewer slots, and may find less; no law measures that.",
        told=True,
    ),
    Explained(
        "raremem.search",
        "_error",
        "return 1.01 * (p.xp.sqrt(p.xp.sum(lost * lost, axis=1)) + roundoff + 2 * queries.shape[1] * F32)",
        "return 1.01 * (p.xp.sqrt(p.xp.sum(lost * lost, axis=1)) + 2 * queries.shape[1] * F32)",
        "The bound on rounding is half as large, and was never seen to be needed whole; a memory made for the"
        " purpose could tell.",
        told=True,
    ),
)
