"""Planted faults of the rules that came after the paper's: forgetting, keeping, scores and sets."""

from __future__ import annotations

from raremem.reference.faults.planting import Fault

_WRITE, _EVICTION, _FORGET, _SCORES = (f"raremem.rules.{name}" for name in ("write", "eviction", "forget", "scores"))
_NUMPY, _TORCH = "raremem.adapters.numpy", "raremem.adapters.torch.primitives"

LATER = (
    # Of rows that are kept (13).
    Fault("a row that is kept moves the key that it hit", _WRITE, "keys = xp.concatenate([state.keys[xp.where(hit, slot, 0)], queries])",
     "keys = xp.concatenate([queries, queries])", law="kept_rows_agree"),
    Fault("a row that hits is not kept", _WRITE, 'accepted if config.write == "keep" else accepted & ~hit', "accepted & ~hit", law="kept_rows_agree"),
    Fault("where rows are kept no hit is counted", _WRITE, "twice, hits = xp.concatenate([targets, targets]), xp.concatenate([hits, xp.zeros_like(hits)])",
     "twice, hits = xp.concatenate([targets, targets]), xp.concatenate([state.hits[xp.where(hit, slot, 0)], xp.zeros_like(hits)])", law="kept_rows_agree"),
    Fault("a row that is kept takes over the hits", _WRITE, "xp.concatenate([hits, xp.zeros_like(hits)])", "xp.concatenate([hits, hits])", law="kept_rows_agree"),
    Fault("where rows are kept a hit makes no slot younger", _WRITE, "xp.concatenate([leads, placed]), xp.concatenate([slot, taken])",
     "xp.concatenate([leads & ~leads, placed]), xp.concatenate([slot, taken])", law="kept_rows_agree"),
    Fault("a row that is kept is reported where it hit", _WRITE, "slots=taken if kept else xp.where(batch.hit, batch.slot, taken)",
     "slots=xp.where(batch.hit, batch.slot, taken)", law="kept_rows_agree"),
    Fault("a row that hits is reported as kept whether it is or not", _WRITE, "written=placed if kept else batch.hit | placed", "written=batch.hit | placed", law="kept_rows_agree"),
    Fault("where rows are kept too few slots are looked at for room", _EVICTION, 'reach = 2 * count if config.write == "keep" else count', "reach = count", law="there_is_room_beside_the_oldest"),
    # Of what is forgotten (14).
    Fault("a slot that is forgotten keeps its key", _FORGET, 'keys = xp.broadcast_to(p.cast(none, "float32")[:, None], (slots.shape[0], config.key_dim))',
     "keys = state.keys[slots]", law="no_byte_is_left"),
    Fault("a slot that is forgotten keeps its key in what is traced", _FORGET, "keys=xp.where(keys_left[:, None], state.keys, 0.0)",
     "keys=state.keys", "jax", law="no_byte_is_left"),
    Fault("a slot that is forgotten keeps its value", _FORGET, "none + NO_SLOT, none, none, state.step", "state.values[slots], none, none, state.step", law="what_is_named_is_forgotten"),
    Fault("a slot that is forgotten keeps its hits", _FORGET, "none + NO_SLOT, none, none, state.step", "none + NO_SLOT, none, state.hits[slots], state.step", law="no_byte_is_left"),
    Fault("a slot that is forgotten keeps its age", _FORGET, "none + NO_SLOT, none, none, state.step", "none + NO_SLOT, state.last_used[slots], none, state.step", law="no_byte_is_left"),
    Fault("time passes when something is forgotten", _FORGET, "none + NO_SLOT, none, none, state.step", "none + NO_SLOT, none, none, state.step + 1", law="what_is_named_is_forgotten"),
    Fault("of many values the first alone are forgotten", _FORGET, "range(0, values.shape[0], COMPARED)", "range(0, 1, COMPARED)", law="what_is_named_is_forgotten"),
    Fault("an age that is the bound is forgotten", _FORGET, "xp.where(ages >= 0, ages, MAX_INT32) > older_than", "xp.where(ages >= 0, ages, MAX_INT32) >= older_than", law="what_is_named_is_forgotten"),
    Fault("the oldest are taken for new", _FORGET, "xp.where(ages >= 0, ages, MAX_INT32) > older_than", "ages > older_than", law="what_ages_no_more_is_old"),
    Fault("a slot of -1 is the last", _FORGET, "(numbers >= 0) & (numbers < none.shape[0])", "(numbers < none.shape[0])", law="what_is_named_is_forgotten"),
    Fault("empty slots are forgotten", _FORGET, "return filled & is_named", "return is_named", law="what_is_named_is_forgotten"),
    Fault("what all name is forgotten", _FORGET, "is_named = is_named | (slots if", "is_named = is_named & (slots if", law="what_is_named_is_forgotten"),
    Fault("a copy of a lookup is of another memory once its slot is forgotten", "raremem.lineage",
     "if known or _found_what_is_empty(p, state, lookup, accepted):", "if known:", law="a_lookup_does_not_outlive_what_it_found"),
    Fault("an index outlives what it holds", "raremem.backend", "            self.index.drop()\n", "            pass\n", "numpy, index", law="no_byte_is_left"),
    # Of sets and sizes.
    Fault("a set is written in one update whatever is asked", "raremem.backend", "            rows = slice(start, start + size)\n",
     "            rows = slice(None)\n", law="a_set_is_stored_in_batches"),
    Fault("the last batch of a set is left out", "raremem.backend", "for start in range(0, max(queries.shape[0], 1), size):", "for start in range(0, max(1, queries.shape[0] - size), size):", law="a_set_is_stored_in_batches"),
    Fault("of a set the last batch alone is counted", "raremem.backend", "*map(sum, columns[3:])", "*(column[-1] for column in columns[3:])", law="a_set_is_stored_in_batches"),
    Fault("a size of no rows is taken", "raremem.validation", "not isinstance(size, (int, np.integer)) or size < 1", "not isinstance(size, (int, np.integer)) or size < 0", law="a_set_is_checked_whole"),
    Fault("slots that are kept are told by their new place", "raremem.state", "return {**whole, \"step\": portable[\"step\"]}, kept",
     "return {**whole, \"step\": portable[\"step\"]}, np.arange(slots, dtype=np.int32)", law="a_memory_in_other_slots"),
    # Of batches without rows.
    Fault("no rows are answered as one", "raremem.backend", "None if field is None else field[:0] for field in found", "None if field is None else field[:1] for field in found", law="no_rows_are_a_batch"),
    Fault("a batch of no rows is reported as one that was rejected", "raremem.backend", "none != none, none != none, zero, zero, zero",
     "none != none, none != none, zero + 1, zero, zero", law="no_rows_are_a_batch"),
    # Of scores (15).
    Fault("values of many classes count for the first", _SCORES, "xp.where(counts, weights, 0.0)", "weights", law="scores_are_sums_of_weights"),
    Fault("values beyond the classes count for those of other rows", _SCORES, "& (values < classes)", "", law="scores_are_sums_of_weights"),
    Fault("the last class has no score", _SCORES, "(values < classes)", "(values < classes - 1)", law="scores_are_sums_of_weights"),
    Fault("no gradient to scores", _SCORES, "xp.where(counts, weights, 0.0)", "xp.where(counts, p.constant(weights), 0.0)", "torch", law="gradient_of_what_is_retrieved_agrees"),
    Fault("of a class the last neighbor alone counts", _TORCH, ".scatter_add(1, columns.long(), array)", ".scatter(1, columns.long(), array)", "torch", law="scores_are_sums_of_weights"),
    Fault("scores of one row are added to the next", _NUMPY, "places = columns + count * np.arange(len(columns))[:, None]",
     "places = (columns + count * np.arange(len(columns))[:, None] + count) % (count * len(columns))", law="scores_are_sums_of_weights"),
)  # fmt: skip
