"""Mutants of `core/search/` that break no law, each with the reason why. See `explained`."""

from __future__ import annotations

from raremem.reference.mutation.reason import EITHER_ORDER, EMPTY, ONE_AXIS, TIME, Explained

SEARCH: tuple[Explained, ...] = (
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
        TIME,
    ),
    Explained(
        "raremem.search.blocks",
        "block_width",
        "return 2 ** max(0, int(math.log2(count / k) / 2))",
        "return 2 ** min(0, int(math.log2(count / k) / 2))",
        TIME,
    ),
    Explained(
        "raremem.search.blocks", "block_width", "return 2 ** max(0, int(math.log2(count / k) / 2))", "return 2 ** (0)", TIME
    ),
    Explained(
        "raremem.search.blocks",
        "block_width",
        "return 2 ** max(0, int(math.log2(count / k) / 2))",
        "return 1 ** max(0, int(math.log2(count / k) / 2))",
        TIME,
    ),
    Explained(
        "raremem.search.blocks",
        "_of_best_blocks",
        "found = p.take_along(scores.T, p.xp.where(rows >= 0, rows, 0))",
        "found = p.take_along(scores.T, p.xp.where(rows > 0, rows, 0))",
        "Row 0 stands for itself and for a row that is not there.",
    ),
    Explained(
        "raremem.search.coarse",
        "error_of",
        "return 1.01 * (p.xp.sqrt(p.xp.sum(lost * lost, axis=1)) + roundoff + 2 * queries.shape[1] * F32_ROUNDOFF)",
        "return 1.01 * (p.xp.sqrt(p.xp.sum(lost * lost, axis=1)) + roundoff + 3 * queries.shape[1] * F32_ROUNDOFF)",
        "A higher bound is a bound too: what it does not prove is scored in f32.",
    ),
    Explained(
        "raremem.search.live",
        "LiveIndex._is_due",
        "if self._built is None:",
        "if True:",
        "An index is then built anew whenever it may be: this takes time, and the answers are the same.",
    ),
    Explained(
        "raremem.search.live",
        "LiveIndex._grow",
        "if self._built is None or np.count_nonzero(self._fresh) <= self.plan.most_fresh:",
        "if True:",
        "Changed slots are then searched exactly until an index is built anew; only time differs.",
    ),
    Explained(
        "raremem.search.live",
        "LiveIndex._grow",
        "slots = np.setdiff1d(np.flatnonzero(self._fresh), self._newest).astype(np.int32)",
        "slots = np.setdiff1d(self._newest, np.flatnonzero(self._fresh)).astype(np.int32)",
        "Changed slots are then searched exactly until an index is built anew; only time differs.",
    ),
    Explained(
        "raremem.search.live",
        "LiveIndex._is_due",
        (
            "return int(np.count_nonzero(self._changed)) > max(self.plan.most_fresh, "
            "len(self._built.slots.slots) // self.plan.share)"
        ),
        (
            "return int(np.count_nonzero(self._changed)) <= max(self.plan.most_fresh, "
            "len(self._built.slots.slots) // self.plan.share)"
        ),
        "It decides when an index is built anew: this takes time, and the answers are the same.",
    ),
    Explained(
        "raremem.search.live",
        "IndexedSearch._proposed_and_fresh",
        "candidates = np.concatenate([candidates, np.where(columns != NO_SLOT, fresh[columns], NO_SLOT)], axis=1)",
        "candidates = np.concatenate([candidates, fresh[columns]], axis=1)",
        (
            "Slots that were written are filled: a search of these finds as many as it is asked for, but for "
            "rows that are not answered."
        ),
    ),
    Explained(
        "raremem.search.portable",
        "PortableScan._of_groups.with_group",
        "start = batch - (groups - index) * rows",
        "start = batch - (index) * rows",
        "The same groups of rows, one after the other, in another order.",
    ),
    Explained(
        "raremem.search.portable",
        "ScanPlan.cut",
        "if slots <= max(self.whole, self.held // max(batch, self.few)):",
        "if slots <= max(self.whole, self.held * max(batch, self.few)):",
        TIME,
    ),
    Explained(
        "raremem.search.portable",
        "PortableScan.find",
        "if not self.plan.in_blocks or not isinstance(batch, int): # an exported program's symbol",
        "if True: # an exported program's symbol",
        TIME,
    ),
    Explained(
        "raremem.search.portable",
        "PortableScan.find",
        "return self._of_groups(p, state, queries, targets, k, chunk, rows)",
        "return self._of_groups(p, state, queries, targets, k, rows, chunk)",
        TIME,
    ),
    Explained(
        "raremem.search.portable",
        "PortableScan._of_group",
        "size = min(slots, max(chunk, k))",
        "size = min(max(chunk, k), slots)",
        EITHER_ORDER,
    ),
    Explained(
        "raremem.search.portable",
        "PortableScan._best_of_columns",
        "return (best, slots + start) if before is None else join(p, (best, slots + start), k, before)",
        "return (best, slots - start) if before is None else join(p, (best, slots + start), k, before)",
        "Where nothing was found before, the chunk is the first, and begins with slot 0.",
    ),
    Explained("raremem.search.shortlist", "Shortlist.find", "if state.values[-1] == NO_SLOT:", "if False:", EMPTY),
    Explained(
        "raremem.search.shortlist",
        "Shortlist.find",
        "if state.values[-1] == NO_SLOT:",
        "if not (state.values[-1] == NO_SLOT):",
        EMPTY,
    ),
    Explained(
        "raremem.search.shortlist",
        "_without_empty_end",
        "return state._replace( keys=state.keys[:count], values=state.values[:count], "
        "last_used=state.last_used[:count], hits=state.hits[:count] )",
        "return state._replace(keys=state.keys[:count], values=state.values[:count], last_used=state.last_used[:count])",
        "The search does not read how often slots were hit.",
    ),
    Explained(
        "raremem.search.shortlist",
        "Shortlist.scan",
        "maxima = p.xp.empty_like(p.xp.broadcast_to(asked[:, 0], (whole // width, len(asked))))",
        "maxima = p.xp.empty_like(p.xp.broadcast_to(asked[:, -1], (whole // width, len(asked))))",
        "The array only lends its shape and its dtype, which the last column has as well as the first.",
    ),
    Explained("raremem.search.shortlist", "Shortlist.largest_of_columns", "if width == 1:", "if not (width == 1):", TIME),
    Explained("raremem.search.shortlist", "ShortlistPlan", "scores: int = 2**20", "scores: int = 3**20", TIME),
    Explained("raremem.search.shortlist", "ShortlistPlan", "scores: int = 2**20", "scores: int = 2*20", TIME),
    Explained("raremem.search.shortlist", "ShortlistPlan", "chunk: int = 2**14", "chunk: int = 2**13", TIME),
    Explained("raremem.search.shortlist", "ShortlistPlan.cut", "blocks = k + k // 2 + 8", "blocks = k - k // 2 + 8", TIME),
    Explained(
        "raremem.search.shortlist",
        "ShortlistPlan.few_enough",
        "return blocks * width * self.share <= slots",
        "return None",
        TIME,
    ),
    Explained(
        "raremem.search.shortlist",
        "ShortlistPlan.cut",
        "width: int = 2 ** max(2, round(math.log2(slots / (blocks * dim)) / 2))",
        "width: int = 2 ** max(2, round(math.log2(slots / (blocks)) / 2))",
        TIME,
    ),
    Explained(
        "raremem.search.shortlist",
        "ShortlistPlan.cut",
        "while rows >= 2 * self.fewest_rows and slots * rows > 2 * width * self.maxima:",
        "while rows >= 2 * self.fewest_rows and rows > 2 * width * self.maxima:",
        TIME,
    ),
    Explained(
        "raremem.search.shortlist",
        "ShortlistPlan.cut",
        "while rows >= 2 * self.fewest_rows and slots * rows > 2 * width * self.maxima:",
        "while False:",
        TIME,
    ),
    Explained(
        "raremem.search.shortlist",
        "Shortlist._of_best_slots",
        "while len(left) and self.plan.few_enough(len(state.values), 2 * blocks, width):",
        "while False:",
        "What is left is then scored in f32, all slots of it; only time differs.",
    ),
    Explained(
        "raremem.search.shortlist",
        "Shortlist._of_few_sizes",
        "return p.xp.concatenate([rows, rows[: -len(rows) % grain]]) if len(rows) >= grain else rows",
        "return p.xp.concatenate([rows, rows[: -len(rows) % grain]]) if len(rows) < grain else rows",
        TIME,
    ),
    Explained(
        "raremem.search.shortlist",
        "Shortlist._of_best_blocks",
        (
            "certain_above = coarse.most_beyond(p, highest) if blocks < len(coarse.maxima) else "
            "p.xp.full_like(coarse.error, NOTHING)"
        ),
        "certain_above = coarse.most_beyond(p, highest) if blocks < len(coarse.maxima) else coarse.error",
        "What is then not proven is scored in f32, all slots of it; only time differs.",
    ),
    Explained(
        "raremem.search.shortlist",
        "Shortlist._scored",
        "rows = max(1, self.plan.gathered_at_once // (chosen.shape[1] * coarse.width * queries.shape[1]))",
        "rows = max(2, self.plan.gathered_at_once // (chosen.shape[1] * coarse.width * queries.shape[1]))",
        TIME,
    ),
    Explained(
        "raremem.search.shortlist",
        "Shortlist._scored",
        "parts.append((p.take_along(ids, order), p.take_along(scores, order[:, -1:])[:, 0]))",
        "parts.append((p.take_along(ids, order), p.take_along(scores, order[:, -1:])[:, -1]))",
        "There is one column, the first and the last.",
    ),
    Explained("raremem.search.shortlist", "Shortlist.largest_of_columns", "if width == 1:", "if width == 0:", TIME),
    Explained(
        "raremem.search.shortlist",
        "_without_empty_end",
        (
            "return state._replace( keys=state.keys[:count], values=state.values[:count], "
            "last_used=state.last_used[:count], hits=state.hits[:count] )"
        ),
        (
            "return state._replace( keys=state.keys[:count], values=state.values[:count], "
            "last_used=state.last_used[:], hits=state.hits[:count] )"
        ),
        "The search does not read when slots were used last.",
    ),
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
        ONE_AXIS,
    ),
    Explained(
        "raremem.search.targets",
        "_best_by_row",
        "rows = order[-max(1, plan.gathered_at_once // (most * queries.shape[1])) :]",
        "rows = order[ :]",
        TIME,
    ),
    Explained(
        "raremem.search.targets",
        "_best_by_product",
        "size = max(1, plan.gathered_at_once // max(queries.shape))",
        "size = max(1, plan.gathered_at_once // min(queries.shape))",
        TIME,
    ),
    Explained(
        "raremem.search.targets",
        "_best_by_product",
        "size = max(1, plan.gathered_at_once // max(queries.shape))",
        "size = max(plan.gathered_at_once // max(queries.shape), 1)",
        TIME,
    ),
)
