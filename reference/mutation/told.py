"""Mutants that no law notices on these backends, though some user could tell: they count as left."""

from __future__ import annotations

from raremem.reference.mutation.reason import Explained

_UNSEEN = (
    "Reached only where the content of arrays cannot be seen, on a GPU or in traced code; none of these backends is such a one."
)

TOLD: tuple[Explained, ...] = (
    Explained(
        "raremem.adapters.numpy",
        "NumpyPrimitives.peek",
        "return np.asarray(array)",
        "return array",
        "Arrays of another framework given to the NumPy backend; laws give it NumPy's.",
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
        "ArrayBackend.copy",
        "arrays = self.in_turn(state, False, lambda: [self.primitives.copy(array) for array in state])",
        "arrays = self.in_turn(state, True, lambda: [self.primitives.copy(array) for array in state])",
        "Only a copy in one thread beside a query in another can tell: it would be refused. No test holds it yet.",
        told=True,
    ),
    Explained(
        "raremem.backend",
        "_memory",
        "return id(keys) if p.in_place and keys is not None else None",
        "return (None)",
        "Only a call from another thread at the same time can tell; held by tests/test_threads.py.",
        told=True,
    ),
    Explained("raremem.backend", "ArrayBackend._checked", "seen_mask = p.peek(mask)", "seen_mask = mask", _UNSEEN, told=True),
    Explained("raremem.backend", "ArrayBackend._checked", 'if dtype_name(targets) != "int64":', "if True:", _UNSEEN, told=True),
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
    Explained("raremem.provenance", "_holds", "return True", "return None", _UNSEEN, told=True),
    Explained(
        "raremem.rules.eviction",
        "_priority",
        "if not by_hits and p.eager and _all_ordinary(p, ages, values, oldest):",
        "if ((not by_hits) and _all_ordinary(p, ages, values, oldest)):",
        "In traced code alone: JAX cannot ask a traced array for its truth. These backends have no compiler; "
        "JAX was not tried.",
        told=True,
    ),
    Explained(
        "raremem.rules.write",
        "update",
        "in_range = (targets >= 0) & (targets <= MAX_INT32)",
        "in_range = (targets >= 0) | (targets <= MAX_INT32)",
        _UNSEEN,
        told=True,
    ),
    Explained(
        "raremem.rules.write",
        "update",
        "rows = xp.where(accepted)[0] if p.eager else None",
        "rows = xp.where(accepted)[0]",
        "In traced code alone: JAX has no shapes that depend on data. These backends have no compiler; JAX was not tried.",
        told=True,
    ),
    Explained(
        "raremem.search.coarse",
        "error_of",
        "return 1.01 * (p.xp.sqrt(p.xp.sum(lost * lost, axis=1)) + roundoff + 2 * queries.shape[1] * F32)",
        "return 1.01 * (p.xp.sqrt(p.xp.sum(lost * lost, axis=1)) + 2 * queries.shape[1] * F32)",
        "The bound on rounding is half as large, and was never seen to be needed whole; a memory made for the "
        "purpose could tell.",
        told=True,
    ),
    Explained(
        "raremem.search.live",
        "LiveIndex.rebuild",
        "if self._followed is not None:",
        "if False:",
        "LiveIndex.rebuild is not called by the laws, which build an index in the call; held by tests/test_index.py.",
        told=True,
    ),
    Explained(
        "raremem.search.live",
        "IndexedSearch._proposed_and_fresh",
        "few = np.flatnonzero((found[:, -1] == NO_SLOT) & (queries != 0).any(axis=1))",
        "few = np.flatnonzero((found[:, -1] != NO_SLOT) & (queries != 0).any(axis=1))",
        "Where an index proposes too few slots; the laws' index proposes all.",
        told=True,
    ),
    Explained(
        "raremem.search.live",
        "IndexedSearch._proposed_and_fresh",
        "few = np.flatnonzero((found[:, -1] == NO_SLOT) & (queries != 0).any(axis=1))",
        "few = np.flatnonzero((found[:, -1] == NO_SLOT) & (queries != 1).any(axis=1))",
        "With key_dim=1 alone, where an index proposes too few slots; the laws' index proposes all.",
        told=True,
    ),
    Explained(
        "raremem.search.shortlist",
        "ShortlistPlan.blocks",
        "return k + k // 2 + 8",
        "return (k // 2) + 8",
        "Exact answers are the same. An approximate index is asked for fewer slots, and may find less; no law measures that.",
        told=True,
    ),
)
