"""Mutants that no law notices: each with the reason why.

Most are here because no user could tell: nothing of them can be seen in any answer, at any size, on any backend; how long a
call takes, and how much memory, is not seen. What some user could tell, but no law on these backends, is `told`, and counts as
left. An entry that fits no mutant of today's code is an error, and so is one that a law kills.
"""

from __future__ import annotations

from raremem.reference.mutation.reason import Explained
from raremem.reference.mutation.told import TOLD

_ONE_AXIS = (
    "The array has one dimension, so that its only axis is the same as none, and its only index array is the last one too."
)
_TIME = (
    "It decides how much is worked out at a time, or by which of two ways; the answers are the same, and "
    "only time and memory differ."
)
_EMPTY = "Cutting the empty slots at the end of a memory saves time only: nothing that is empty is ever found."

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
        "NumpyPrimitives.inner",
        "return left @ right.T if len(left) > len(right) else (right @ left.T).T",
        "return (left @ right.T)",
        "The same product; which of the two ways is taken is a matter of time.",
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
        "raremem.rules.eviction",
        "_contenders",
        "places = xp.where(priority >= lowest)[0]",
        "places = xp.where(priority >= lowest)[-1]",
        _ONE_AXIS,
    ),
    Explained(
        "raremem.rules.eviction",
        "_all_ordinary",
        "return bool((p.xp.amin(values) != NO_SLOT) & (p.xp.amin(ages) >= 0) & (p.xp.amax(ages) < oldest))",
        "return bool((p.xp.amin(values) != NO_SLOT) & (p.xp.amin(ages) >= -1) & (p.xp.amax(ages) < oldest))",
        "An age of -1 is one of exactly 2**32 - 1 updates, one before the slot looks new by its own definition.",
    ),
    Explained(
        "raremem.rules.loss",
        "_negative_log_likelihood",
        "nearest, highest = p.constant(logits)[:, 0], p.constant(best)",
        "nearest, highest = p.constant(logits)[:, 0], best",
        "What is subtracted from both sides and added again has no gradient of its own, whether it is a constant or not.",
    ),
    Explained(
        "raremem.rules.query",
        "normalize",
        "rows, largest = xp.where(accepted[:, None], rows, 1.0), xp.where(accepted, largest, 1.0)",
        "rows, largest = xp.where(accepted[:, None], rows, 1.0), xp.where(accepted, largest, 2.0)",
        "Rows that are not accepted are set to zero afterwards, whatever they are divided by.",
    ),
    Explained(
        "raremem.rules.write",
        "update",
        "hit = accepted & (slot != NO_SLOT) & (found.values[:, 0] == targets) & still",
        "hit = accepted & (found.values[:, 0] == targets) & still",
        "Where there is no slot the lookup's value is -1, which no accepted target is.",
    ),
    Explained(
        "raremem.rules.write",
        "_store",
        'rank = p.cast(xp.cumsum(p.cast(miss, "int32"), axis=0), "int32") - 1',
        'rank = p.cast(xp.cumsum(p.cast(miss, "int32")), "int32") - 1',
        _ONE_AXIS,
    ),
    Explained(
        "raremem.rules.write",
        "_count",
        'return p.cast(p.xp.sum(p.cast(rows, "int32"), axis=0), "int32")',
        'return p.cast(p.xp.sum(p.cast(rows, "int32")), "int32")',
        _ONE_AXIS,
    ),
    Explained(
        "raremem.search.blocks",
        "block_width",
        "return 2 ** max(0, int(math.log2(count / k) / 2))",
        "return 2 ** max(-1, int(math.log2(count / k) / 2))",
        "There are never fewer numbers than are asked for, so that the logarithm is never below 0.",
    ),
    Explained(
        "raremem.search.blocks",
        "block_width",
        "return 2 ** max(0, int(math.log2(count / k) / 2))",
        "return 2 ** max(0, int(math.log2(count / k) / 1))",
        _TIME,
    ),
    Explained(
        "raremem.search.blocks",
        "block_width",
        "return 2 ** max(0, int(math.log2(count / k) / 2))",
        "return 2 ** min(0, int(math.log2(count / k) / 2))",
        _TIME,
    ),
    Explained(
        "raremem.search.live",
        "LiveIndex._is_due",
        "if self._built is None:",
        "if True:",
        "An index is then built anew whenever it may be: this takes time, and the answers are the same.",
    ),
    Explained(
        "raremem.search.portable",
        "PortableScan._of_groups.with_group",
        "start = batch - (groups - index) * rows",
        "start = batch - (index) * rows",
        "The same groups of rows, one after the other, in another order.",
    ),
    Explained("raremem.search.shortlist", "_filled", "if state.values[-1] != NO_SLOT:", "if False:", _EMPTY),
    Explained(
        "raremem.search.shortlist",
        "_filled",
        "if state.values[-1] != NO_SLOT:",
        "if not (state.values[-1] != NO_SLOT):",
        _EMPTY,
    ),
    Explained(
        "raremem.search.shortlist",
        "_filled",
        "return state._replace( keys=state.keys[:count], values=state.values[:count], "
        "last_used=state.last_used[:count], hits=state.hits[:count] )",
        "return state._replace(keys=state.keys[:count], values=state.values[:count], last_used=state.last_used[:count])",
        "The search does not read how often slots were hit.",
    ),
    Explained(
        "raremem.search.shortlist",
        "Shortlist.scan",
        "if width == 1:",
        "if False:",
        "In low precision, too, the bound proves the answer or all slots are scored in f32.",
    ),
    Explained(
        "raremem.search.shortlist",
        "Shortlist.scan",
        "maxima = p.xp.empty_like(p.xp.broadcast_to(asked[:, 0], (whole // width, len(asked))))",
        "maxima = p.xp.empty_like(p.xp.broadcast_to(asked[:, -1], (whole // width, len(asked))))",
        "The array only lends its shape and its dtype, which the last column has as well as the first.",
    ),
    Explained("raremem.search.shortlist", "Shortlist.largest_of_columns", "if width == 1:", "if not (width == 1):", _TIME),
    Explained(
        "raremem.search.targets",
        "_best_by_product",
        "score = xp.full_like(queries[:, 0], NOTHING)",
        "score = xp.full_like(queries[:, -1], NOTHING)",
        "The array only lends its shape and its dtype, which the last column has as well as the first.",
    ),
    Explained(
        "raremem.search.targets",
        "_best_by_product",
        "highest = p.take_along(scores, column[:, None])[:, 0]",
        "highest = p.take_along(scores, column[:, None])[:, -1]",
        _ONE_AXIS,
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
    *TOLD,
)
